"""Boxes that are given instead of the proposals. docs/extraction.md has the files' schemas."""

from __future__ import annotations

import logging
import math
import os
import re
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BoxesError, ConfigError, StoreError, first_line
from ..structures.input_image import InputImage
from .box_doubts import BoxDoubts
from .box_files import BoxTable, Key, StoredBoxes, read_box_file
from .image_list import relative_to

if TYPE_CHECKING:  # reading a file of boxes takes no torch
    from torch import Tensor

BOX_FORMATS = ("xyxy", "xywh")

logger = logging.getLogger(__name__)

_NUMBERED = re.compile(r"(?:COCO_\w+_)?(\d+)")  # a file name that is the number of its image


class GivenBoxes:
    """The boxes of many images.

    Args:
        boxes: (key, boxes) of each image, with boxes of shape (n, 4); see :meth:`assign` for the
            keys. Or the content of a file.
        source: where they come from, for messages.
        box_format: ``"xyxy"``, two corners, or ``"xywh"``, the top left corner and the sides; None:
            what the file says, else ``"xyxy"``.
        normalized: whether coordinates are shares (0..1) of the image's width and height, instead
            of original pixels; None: what the file says, else False.
        inclusive: whether the corner (x2, y2) of ``"xyxy"`` is the last pixel of the box, instead
            of the one after it; None: what the file says, else ``by_default``. The sides of
            ``"xywh"`` are numbers of pixels: x + width is one after the last.
        by_default: of ``inclusive``. True for VMB, as it takes boxes, also those that MMF's scripts
            hand to it, such as M4C's OCR boxes.

    Raises:
        ConfigError: no such format, or a value that contradicts the file or another value.
        BoxesError: an image has two entries with different boxes, or its boxes aren't finite
            numbers of shape (n, 4).
    """

    def __init__(
        self,
        boxes: Iterable[tuple[str, Any]] | BoxTable | StoredBoxes,
        source: str | Path = "boxes",
        *,
        box_format: str | None = None,
        normalized: bool | None = None,
        inclusive: bool | None = None,
        by_default: bool = True,
    ):
        if not isinstance(boxes, (BoxTable, StoredBoxes)):
            boxes = BoxTable((((key,), values) for key, values in boxes), source)
        if box_format not in (None, *BOX_FORMATS):
            raise ConfigError(field="boxes_format", value=box_format, valid=BOX_FORMATS)
        options = {"boxes_format": box_format, "normalized": normalized, "inclusive": inclusive}
        given = {field: value for field, value in options.items() if value is not None}
        kind = boxes.kind
        for field, value in given.items():
            fixed = kind.meaning.get(field, value)
            if value != fixed:
                raise ConfigError(
                    f"`{field}`={str(value).lower()}: {source} is {kind.words}, with "
                    f"`{field}`={str(fixed).lower()}; leave it out"
                )
        meaning = {"boxes_format": "xyxy", "normalized": False, **kind.meaning, **given}
        self.source = source
        self.box_format: str = meaning["boxes_format"]
        self.normalized: bool = meaning["normalized"]
        corners = self.box_format == "xyxy"
        self.inclusive: bool = meaning.get("inclusive", by_default and corners)
        if self.inclusive and self.box_format == "xywh":
            raise ConfigError(
                "`inclusive`=true: not with `boxes_format`=xywh, whose sides are numbers of pixels"
            )
        self._table = boxes
        self._rows: dict[Key, int | None] = boxes.keys
        self._doubts = BoxDoubts(source, self.box_format, self.normalized, kind.words)

    @classmethod
    def read(cls, path: str | Path, **options: Any) -> GivenBoxes:
        """Read a ``.json``, ``.jsonl``, ``.npy`` or ``.npz`` file, or open a store of features.

        Args:
            path: of the file, or of the store, whose boxes are read when :meth:`of` needs them.
            **options: see the class.

        Raises:
            ConfigError: another kind of file, or options that contradict it.
            BoxesError: it can't be read or is damaged.
        """
        try:
            return cls(read_box_file(Path(path)), path, **options)
        except (OSError, StoreError, TypeError, ValueError, zipfile.BadZipFile) as error:
            reason = getattr(error, "strerror", None) or first_line(error)
            raise BoxesError(f"`boxes_file`={path}: {reason}") from error

    def assign(self, images: Sequence[InputImage], folder: str | Path = "") -> tuple[int, int]:
        """Find the boxes of each image, and warn if they look different from what is declared.

        An image's entry has as its key the image's path, its path relative to ``folder``, its name
        or its file name; or the relative path or file name without the extension. Where no key
        fits, an entry's number may be the number in a file name such as ``9.jpg`` or
        ``COCO_train2014_000000000009.jpg``.

        Returns:
            How many images have no entry, and how many entries no image.

        Raises:
            BoxesError: no image has an entry, two share one, or one could have several.
        """
        found: dict[Key, int | None] = {}
        used: dict[int, str] = {}
        relative = relative_to(folder)
        for image in images:
            key, row = self._find(image, relative(image.path))
            if row is None:
                continue
            if row in used:
                raise BoxesError(
                    f"{self.source}: {key} stands for {used[row]} and for {image.path}; "
                    "name images by their paths"
                )
            used[row] = image.path
            found[image.name] = row
        if images and not found:
            example = next(iter(self._table.keys), "nothing")
            raise BoxesError(
                f"{self.source}: has no boxes of any of the images; it has {example}, "
                f"they are {images[0].path}, ..."
            )
        self._rows = found
        self._doubts.look_at_all(self._table.values)
        return len(images) - len(found), len(self._table) - len(found)

    def _find(self, image: InputImage, relative: str | None) -> tuple[Key, int | None]:
        """The key of an image and its row; None where it has no entry."""
        file_name = os.path.basename(image.path)
        stem = os.path.splitext(file_name)[0]
        names: list[Key | None] = [image.path, relative, image.name, file_name]
        names += [relative and os.path.splitext(relative)[0], stem]
        if number := _NUMBERED.fullmatch(stem):
            names.append(int(number[1]))
        known = [name for name in names if name is not None and name in self._table.keys]
        for name in known:
            if (row := self._table.keys[name]) is not None:
                return name, row
        if known:
            raise BoxesError(f"{self.source}: has several entries that can mean {image.path}")
        return "", None

    def of(self, name: str, width: int, height: int, inclusive: bool = True) -> Tensor:
        """The boxes of an image, none where it has no entry.

        Warns once, at the first image whose boxes look different from what is declared.

        Args:
            name: the image's.
            width, height: in original pixels.
            inclusive: whether the boxes returned are.

        Returns:
            float32 (n, 4), in original pixels, in the order given.

        Raises:
            BoxesError: a box ends before it begins, or boxes can't be read.
        """
        import torch

        from ..structures import box_geometry

        row = self._rows.get(name)
        if row is None:
            return torch.zeros((0, 4))
        values = self._table.boxes(row)
        boxes = torch.tensor(values)
        if self.normalized:
            boxes *= boxes.new_tensor([width, height, width, height])
        if self.box_format == "xywh":
            boxes[:, 2:] += boxes[:, :2]
        exclusive = None if self.inclusive else boxes
        if exclusive is not None:
            boxes = box_geometry.to_inclusive(boxes)
        boxes = boxes.float()
        wrong = ~box_geometry.VMB.has_sides_of(boxes, 0)
        self._doubts.look_at(name, values, boxes.numpy(), wrong.numpy(), (width, height))
        if wrong.any():
            i = int(wrong.nonzero()[0])
            raise BoxesError(f"{name}: box {i} ends before it begins: {boxes[i].tolist()}")
        if inclusive:
            return boxes
        return box_geometry.to_exclusive(boxes) if exclusive is None else exclusive.float()

    def log_outside(self) -> None:
        """Log how many of the boxes that :meth:`of` gave lie wholly outside of their images."""
        self._doubts.log_outside()

    def mean_count(self) -> int:
        """The mean number of boxes of an entry, rounded up; of a store, in a sample."""
        return math.ceil(self._table.mean_count)

    def settings(self) -> dict[str, Any]:
        """All that the boxes depend on, as plain values."""
        return {
            "sha256": self._table.sha256,
            "format": self.box_format,
            "normalized": self.normalized,
            "inclusive": self.inclusive if self.box_format == "xyxy" else None,
        }
