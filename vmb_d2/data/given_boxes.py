"""Boxes that a user gives instead of the proposals. docs/extraction.md has the files' schemas."""

from __future__ import annotations

import logging
import os
import re
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BoxesError, ConfigError, StoreError, first_line
from ..structures.input_image import InputImage
from .box_doubts import BoxDoubts
from .box_files import BoxFile, BoxTable, Entry, read_box_file
from .image_list import relative_to

if TYPE_CHECKING:  # reading a file of boxes takes no torch
    from torch import Tensor

BOX_FORMATS = ("xyxy", "xywh")

logger = logging.getLogger(__name__)

_NUMBERED = re.compile(r"(?:COCO_\w+_)?(\d+)")  # a file's name that says its image's id


class GivenBoxes:
    """The boxes of many images.

    Args:
        boxes: (key, boxes (n, 4)) for each image; see :meth:`assign` for the keys. Or what a file
            holds.
        source: what they were read from, for messages.
        box_format: ``"xyxy"``, two corners; ``"xywh"``, the top left corner and the sides; None for
            what the file says, else ``"xyxy"``.
        normalized: x and y in 0..1, as shares of the image's width and height; else in original
            pixels; None for what the file says, else pixels.
        inclusive: whether the corner (x2, y2) of ``"xyxy"`` is the last pixel of the box, as
            everywhere in VMB and with None, or the first one after it. What MMF's scripts pass to
            VMB, M4C's normalised OCR boxes among it, is taken as inclusive. The sides of ``"xywh"``
            count pixels, so that x + width is the first one after it.

    Raises:
        ConfigError: no such format, or one that contradicts the file or another option.
        BoxesError: an image occurs twice, or its boxes aren't finite numbers of shape (n, 4).
    """

    def __init__(
        self,
        boxes: Iterable[tuple[str, Any]] | BoxFile,
        source: str | Path = "boxes",
        *,
        box_format: str | None = None,
        normalized: bool | None = None,
        inclusive: bool | None = None,
    ):
        if not isinstance(boxes, BoxFile):
            entries = (Entry((key,), values) for key, values in boxes)
            boxes = BoxFile(BoxTable(entries, source))
        if box_format not in (None, *BOX_FORMATS):
            raise ConfigError(f"boxes.format={box_format}: valid are {', '.join(BOX_FORMATS)}")
        given = {"box_format": box_format, "normalized": normalized, "inclusive": inclusive}
        given = {key: value for key, value in given.items() if value is not None}
        for key, value in given.items():
            if boxes.meaning.get(key, value) != value:
                raise ConfigError(
                    f"{_option(key, value)}: {source} is {boxes.kind}, with "
                    f"{_option(key, boxes.meaning[key])}; leave the option out"
                )
        meaning = {"box_format": "xyxy", "normalized": False, **boxes.meaning, **given}
        self.source = source
        self.box_format: str = meaning["box_format"]
        self.normalized: bool = meaning["normalized"]
        self.inclusive: bool = meaning.get("inclusive", self.box_format == "xyxy")
        if self.inclusive and self.box_format == "xywh":
            raise ConfigError(
                f"{_option('inclusive', True)}: not with boxes.format=xywh, whose sides count the "
                "pixels; leave the option out"
            )
        self._table = boxes.table
        self._rows = {key: row for key, row in self._table.keys.items() if row is not None}
        self._doubts = BoxDoubts(source, self.box_format, self.normalized, boxes.kind)

    @classmethod
    def read(cls, path: str | Path, **options) -> GivenBoxes:
        """From a ``.json``, ``.jsonl``, ``.npy`` or ``.npz`` file, or a store of features.

        A store's boxes are read when they are asked for.

        Raises:
            ConfigError: another kind of file, or options that contradict it.
            BoxesError: it can't be read or is damaged.
        """
        try:
            return cls(read_box_file(Path(path)), path, **options)
        except OSError as error:
            raise BoxesError(f"boxes.file={path}: {error.strerror or error}") from error
        except (StoreError, TypeError, ValueError, zipfile.BadZipFile) as error:
            raise BoxesError(f"boxes.file={path}: {first_line(error)}") from error

    def assign(self, images: Sequence[InputImage], folder: str | Path = "") -> tuple[int, int]:
        """Find the boxes of each image, and warn where they look like others than declared.

        An entry means the image that has as its key: its path, its path below ``folder``, its name,
        its file's name; or the second or last of these without the extension. An entry with a
        number means the image whose file is called so, as in ``9.jpg`` or
        ``COCO_train2014_000000000009.jpg``, unless a key is found.

        Returns:
            How many of the images have no entry, and how many entries have no image.

        Raises BoxesError where no image has an entry, two share one, or one could have several.
        """
        found: dict[str, int] = {}
        used: dict[int, str] = {}
        relative, keys, by_number = relative_to(folder), self._table.keys, 0
        for image in images:
            file_name = os.path.basename(image.path)
            names = [image.path, relative(image.path), image.name, file_name]
            names += [os.path.splitext(name)[0] for name in names[1::2] if name]
            known = [name for name in names if name in keys]
            key = next((name for name in known if keys[name] is not None), None)
            if known and key is None:
                raise BoxesError(f"{self.source}: has several entries that can mean {image.path}")
            row = keys.get(key)
            if not known and (number := _NUMBERED.fullmatch(names[-1])):
                key = number[1]
                row = self._table.numbers.get(int(key))
                by_number += row is not None
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
            example = next(iter(self._table.keys or self._table.numbers), "nothing")
            raise BoxesError(
                f"{self.source}: has no boxes of any of the images; it has {example}, "
                f"they are {images[0].path}, ..."
            )
        if by_number:
            words = "%s: %d images found by their id, the number in their names"
            logger.info(words, self.source, by_number)
        self._rows = found
        self._doubts.of_all(self._table.values)
        return len(images) - len(found), len(self._table) - len(found)

    def of(self, name: str, width: int, height: int) -> Tensor:
        """The boxes of an image, none where it has no entry.

        The first image whose boxes look like others than declared gets a warning, unless
        :meth:`assign` gave it.

        Args:
            name: the image's.
            width, height: in original pixels.

        Returns:
            float32 (n, 4), inclusive, in original pixels, in the order given.

        Raises BoxesError where a box has its second corner before its first, or can't be read.
        """
        import torch

        from ..structures import box_geometry

        if name not in self._rows:
            return torch.zeros((0, 4))
        values = self._table.boxes(self._rows[name])
        boxes = torch.from_numpy(values.copy())
        if self.normalized:
            boxes *= boxes.new_tensor([width, height, width, height])
        if self.box_format == "xywh":
            boxes[:, 2:] += boxes[:, :2]
        if not self.inclusive:
            boxes = box_geometry.to_inclusive(boxes)
        boxes = boxes.float()
        wrong = ~box_geometry.has_sides_of(boxes, 0)
        self._doubts.of_image(name, values, boxes.numpy(), wrong.numpy(), (width, height))
        if wrong.any():
            row = int(wrong.nonzero()[0])
            raise BoxesError(f"{name}: box {row} ends before it begins: {boxes[row].tolist()}")
        return boxes

    def log_outside(self) -> None:
        """Say how many of the boxes that were asked for lie wholly outside of their images."""
        self._doubts.log_outside()

    def mean_count(self) -> int:
        """Boxes an image, rounded up; of a store, in a sample."""
        counts = self._table.counts(self._rows.values())
        return -(-sum(counts) // max(len(counts), 1))

    def most_count(self) -> int:
        """Boxes of the image that has the most; of a store, in a sample."""
        return max(self._table.counts(self._rows.values()), default=0)

    def settings(self) -> dict[str, Any]:
        """What decides about the boxes, the content of the file included, as plain values."""
        return {
            "sha256": self._table.sha256,
            "format": self.box_format,
            "normalized": self.normalized,
            "inclusive": self.inclusive if self.box_format == "xyxy" else None,
        }


def _option(key: str, value: Any) -> str:
    """As on the command line."""
    text = str(value).lower() if isinstance(value, bool) else value
    return f"boxes.{'format' if key == 'box_format' else key}={text}"
