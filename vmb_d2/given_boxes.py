"""Boxes that a user gives instead of the proposals. docs/extraction.md has the files' schemas."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import BoxesError, ConfigError, StoreError, first_line
from .inputs import InputImage, relative_to
from .stores import pickles

if TYPE_CHECKING:  # reading a file of boxes takes no torch
    from torch import Tensor

BOX_FORMATS = ("xyxy", "xywh")


class GivenBoxes:
    """The boxes of many images.

    Args:
        boxes: (key, boxes (n, 4)) for each image; see :meth:`assign` for the keys.
        source: what they were read from, for messages.
        box_format: ``"xyxy"``, two corners; ``"xywh"``, the top left corner and the sides.
        normalized: x and y in 0..1, as shares of the image's width and height; else in original
            pixels.
        inclusive: whether the corner (x2, y2) of ``"xyxy"`` is the last pixel of the box, as
            everywhere in VMB, or the first one after it. What MMF's scripts pass to VMB, M4C's
            normalised OCR boxes among it, is taken as inclusive.

    Raises:
        ConfigError: no such format.
        BoxesError: an image occurs twice, or its boxes aren't finite numbers of shape (n, 4).
    """

    def __init__(
        self,
        boxes: Iterable[tuple[str, Any]],
        source: str | Path = "boxes",
        *,
        box_format: str = "xyxy",
        normalized: bool = False,
        inclusive: bool = True,
    ):
        if box_format not in BOX_FORMATS:
            raise ConfigError(f"boxes.format={box_format}: valid are {', '.join(BOX_FORMATS)}")
        self.source = source
        self.box_format = box_format
        self.normalized = normalized
        self.inclusive = inclusive
        self._rows: dict[str, slice] = {}  # by key, then by name, into one array: a million fit
        arrays, count, digest = [np.zeros((0, 4))], 0, hashlib.sha256()
        for key, values in boxes:
            if key in self._rows:
                raise BoxesError(f"{source}: {key} occurs twice")
            arrays.append(_checked(values, f"{source}: {key}"))
            self._rows[key] = slice(count, count + len(arrays[-1]))
            count += len(arrays[-1])
            digest.update(f"{key}\0".encode(errors="surrogateescape") + arrays[-1].tobytes())
        self._boxes = np.concatenate(arrays)
        self._sha256 = digest.hexdigest()

    @classmethod
    def read(cls, path: str | Path, **options) -> GivenBoxes:
        """From a ``.json``, ``.jsonl``, ``.npy`` or ``.npz`` file.

        Raises:
            ConfigError: another kind of file.
            BoxesError: it can't be read or is damaged.
        """
        readers = {".json": _read_json, ".jsonl": _read_json_lines, ".npy": _read_npy}
        readers[".npz"] = _read_npz
        reader = readers.get(Path(path).suffix.lower())
        if reader is None:
            raise ConfigError(f"boxes.file={path}: valid are {', '.join(readers)} files")
        try:
            return cls(reader(Path(path)), path, **options)
        except OSError as error:
            raise BoxesError(f"boxes.file={path}: {error.strerror or error}") from error
        except (StoreError, ValueError, zipfile.BadZipFile) as error:
            raise BoxesError(f"boxes.file={path}: {first_line(error)}") from error

    def assign(self, images: Sequence[InputImage], folder: str | Path = "") -> tuple[int, int]:
        """Find the boxes of each image: under its path, its path below ``folder``, or its name.

        An image's file name will do as well where no other image has it.

        Returns:
            How many of the images have no entry, and how many entries have no image.

        Raises BoxesError where no image has an entry, or two share one.
        """
        found, used = {}, {}
        relative = relative_to(folder)
        for image in images:
            file_name = os.path.basename(image.path)
            keys = (image.path, relative(image.path), image.name, file_name)
            key = next((key for key in keys if key in self._rows), None)
            if key is None:
                continue
            if key in used:
                raise BoxesError(
                    f"{self.source}: {key} stands for {used[key]} and for {image.path}; "
                    "name images by their paths"
                )
            used[key] = image.path
            found[image.name] = self._rows[key]
        if images and not found:
            example = next(iter(self._rows), "nothing")
            raise BoxesError(
                f"{self.source}: has no boxes of any of the images; it has {example}, "
                f"they are {images[0].path}, ..."
            )
        unused = len(self._rows) - len(found)
        self._rows = found
        return len(images) - len(found), unused

    def of(self, name: str, width: int, height: int) -> Tensor:
        """The boxes of an image, none where it has no entry.

        Args:
            name: the image's.
            width, height: in original pixels.

        Returns:
            float32 (n, 4), inclusive, in original pixels, in the order given.

        Raises BoxesError where a box has its second corner before its first.
        """
        import torch

        from .modeling import box_geometry

        boxes = torch.from_numpy(self._boxes[self._rows.get(name, slice(0))].copy())
        if self.normalized:
            boxes *= boxes.new_tensor([width, height, width, height])
        if self.box_format == "xywh":
            boxes[:, 2:] += boxes[:, :2]
        if self.box_format == "xywh" or not self.inclusive:
            boxes = box_geometry.to_inclusive(boxes)
        boxes = boxes.float()
        wrong = ~box_geometry.has_sides_of(boxes, 0)
        if wrong.any():
            row = int(wrong.nonzero()[0])
            raise BoxesError(f"{name}: box {row} ends before it begins: {boxes[row].tolist()}")
        return boxes

    def mean_count(self) -> int:
        """Boxes an image, rounded up."""
        return -(-len(self._boxes) // max(len(self._rows), 1))

    def most_count(self) -> int:
        """Boxes of the image that has the most."""
        return max((rows.stop - rows.start for rows in self._rows.values()), default=0)

    def settings(self) -> dict[str, Any]:
        """What decides about the boxes, the content of the file included, as plain values."""
        return {
            "sha256": self._sha256,
            "format": self.box_format,
            "normalized": self.normalized,
            "inclusive": self.inclusive,
        }


def _checked(values: Any, what: str) -> np.ndarray:
    """float64 (n, 4). Raises BoxesError."""
    try:
        boxes = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise BoxesError(f"{what}: boxes are lists of four numbers") from error
    if boxes.size == 0:
        return np.zeros((0, 4))
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise BoxesError(f"{what}: boxes are of shape (n, 4), not {boxes.shape}")
    if not np.isfinite(boxes).all():
        raise BoxesError(f"{what}: a box has a coordinate that is no number")
    return boxes


def _read_json(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        value = json.loads(path.read_bytes())
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":  # more than one value: lines, under the other file name
            return _read_json_lines(path)
        raise
    if isinstance(value, dict) and not {"image", "boxes"} <= value.keys():
        return iter(value.items())
    entries = value if isinstance(value, list) else [value]
    return (_entry(entry, f"entry {i}") for i, entry in enumerate(entries, start=1))


def _read_json_lines(path: Path) -> Iterator[tuple[str, Any]]:
    with open(path, encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                value = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"line {number}: {error.msg}") from error
            yield _entry(value, f"line {number}")


def _entry(value: Any, what: str) -> tuple[str, Any]:
    if not isinstance(value, dict) or not {"image", "boxes"} <= value.keys():
        raise ValueError(f'{what}: is not {{"image": name, "boxes": [...]}}')
    return str(value["image"]), value["boxes"]


def _read_npy(path: Path) -> Iterator[tuple[str, Any]]:
    with open(path, "rb") as file:
        value = pickles.load_npy(file)
    if not isinstance(value, dict):
        raise ValueError("holds no dict of image -> boxes (n, 4)")
    return ((str(key), boxes) for key, boxes in value.items())


def _read_npz(path: Path) -> Iterator[tuple[str, Any]]:
    with np.load(path, allow_pickle=False) as arrays:
        if not isinstance(arrays, np.lib.npyio.NpzFile):
            raise ValueError("is no npz file")
        for key in arrays.files:
            yield key, arrays[key]
