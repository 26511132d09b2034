"""The files and stores that boxes are read from. docs/extraction.md has their schemas."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import weakref
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import BoxesError, ConfigError, StoreError
from ..output.manifest import has_inclusive_boxes
from ..output.open_stores import open_reader
from ..utils import safe_pickle as pickles

SAMPLE = 100  # images of a store that are looked at beforehand

Key = str | int  # a name of an image, or its id


# Keys of an image, at least one, and its boxes (n, 4). Two with one first key are of one image.
Entry = tuple[tuple[Key, ...], Any]


class BoxKind(NamedTuple):
    """A kind of file.

    Attributes:
        words: what it is; empty for one that leaves open what its coordinates mean.
        meaning: the ``boxes_format``, ``normalized`` and ``inclusive`` that it determines; see
            :class:`vmb_d2.data.given_boxes.GivenBoxes`.
    """

    words: str
    meaning: Mapping[str, Any]


PLAIN = BoxKind("", {})
IMDB = BoxKind("an imdb of M4C", {"boxes_format": "xyxy", "normalized": True})
COCO = BoxKind("COCO's annotations", {"boxes_format": "xywh", "normalized": False})
VILBERT = BoxKind("ViLBERT's ground truth", {"boxes_format": "xyxy", "normalized": False})
STORE = BoxKind("a store", {"boxes_format": "xyxy", "normalized": False, "inclusive": True})


class BoxTable:
    """Boxes of many images in one array, so that those of a million images fit in memory.

    Attributes:
        keys: the row of each key; None where it is a key of several images.
        values: float64 (n, 4), the boxes of all images.
        sha256: of the first keys and the boxes.
        mean_count: the mean number of boxes of an image; of a store, in the sample.
        kind: of the file.

    Raises:
        BoxesError: an image has two entries with different boxes, or its boxes aren't finite
            numbers of shape (n, 4).
    """

    def __init__(self, entries: Iterable[Entry], source: str | Path, kind: BoxKind = PLAIN):
        self.kind = kind
        first_keys: dict[Key, int] = {}
        others: dict[Key, int | None] = {}
        arrays: list[np.ndarray] = []
        digest = hashlib.sha256()
        for keys, values in entries:
            key = keys[0]
            boxes = checked(values, f"{source}: image {key}")
            row = first_keys.setdefault(key, len(arrays))
            if row == len(arrays):
                arrays.append(boxes)
                digest.update(f"{key}\0".encode(errors="surrogateescape") + boxes.tobytes())
            elif not np.array_equal(arrays[row], boxes):
                raise BoxesError(f"{source}: image {key} occurs twice, with different boxes")
            for other in keys[1:]:
                others[other] = row if others.get(other, row) == row else None
        self.keys: dict[Key, int | None] = {**others, **first_keys}
        self.values = np.concatenate([np.zeros((0, 4)), *arrays])
        self.sha256 = digest.hexdigest()
        self.mean_count = len(self.values) / max(len(arrays), 1)
        self._ends = np.cumsum([0, *map(len, arrays)])

    def __len__(self) -> int:
        return len(self._ends) - 1

    def boxes(self, row: int) -> np.ndarray:
        """float64 (n, 4), not to be changed."""
        return self.values[self._ends[row] : self._ends[row + 1]]


class StoredBoxes:
    """The boxes in a store of features, with the methods of a BoxTable.

    An image's boxes are read when they are asked for. Those of a sample of images are read at once:
    ``sha256`` is of all names and of the sample's boxes.

    Args:
        path: of the store, which stays open as long as this object exists.

    Raises:
        StoreError: it can't be opened.
        BoxesError: it has no boxes.
    """

    def __init__(self, path: str | Path):
        meaning = {**STORE.meaning, "inclusive": has_inclusive_boxes(path)}
        self.kind = STORE._replace(meaning=meaning)
        self._reader = open_reader(path)
        weakref.finalize(self, self._reader.close)
        self._names = sorted(self._reader.names())
        self.keys: dict[Key, int | None] = {name: row for row, name in enumerate(self._names)}
        self.values = np.zeros((0, 4))
        counts = []
        digest = hashlib.sha256("\0".join(self._names).encode(errors="surrogateescape"))
        size = min(SAMPLE, len(self))
        for row in (i * len(self) // size for i in range(size)):
            with contextlib.suppress(BoxesError):  # of this image, until its boxes are asked for
                boxes = self.boxes(row)
                digest.update(f"{row}\0".encode() + boxes.tobytes())
                counts.append(len(boxes))
        if self._names and not counts:
            self.boxes(0)  # raises the error that the sample's images have
        self.sha256 = digest.hexdigest()
        self.mean_count = sum(counts) / max(len(counts), 1)

    def __len__(self) -> int:
        return len(self._names)

    def boxes(self, row: int) -> np.ndarray:
        """float64 (n, 4). Raises BoxesError where they can't be read."""
        name = self._names[row]
        try:
            found = self._reader.read(name).bbox
        except StoreError as error:
            raise BoxesError(str(error)) from error
        if found is None:
            raise BoxesError(f"{self._reader.path}: has no boxes of {name}")
        return checked(found, f"{self._reader.path}: {name}")


def read_box_file(path: Path) -> BoxTable | StoredBoxes:
    """Read a file, whose kind is known by its suffix and content, or open a store.

    Raises:
        ConfigError: it is no such file and no store.
        BoxesError, StoreError, OSError, TypeError, ValueError, zipfile.BadZipFile: it can't be
            read or is damaged.
    """
    suffix = path.suffix.lower()
    if suffix == ".json":
        return _from_value(json.loads(path.read_bytes()), path)
    if suffix == ".jsonl":
        with open(path, encoding="utf-8-sig") as lines:
            return BoxTable(_of_records(_values(lines)), path)
    if suffix == ".npy":
        with open(path, "rb") as file:
            return _from_value(pickles.load_npy(file), path)
    if suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            if not isinstance(arrays, np.lib.npyio.NpzFile):
                raise ValueError("is no npz file")
            return BoxTable((((key,), arrays[key]) for key in arrays.files), path)
    try:
        return StoredBoxes(path)
    except StoreError as error:
        raise ConfigError(
            f"`boxes_file`={path}: valid are .json, .jsonl, .npy, .npz files and stores of "
            f"features ({error})"
        ) from error


def checked(values: Any, what: str) -> np.ndarray:
    """``values`` as float64 (n, 4). Raises BoxesError, which begins with ``what``."""
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


def _values(lines: Iterable[str]) -> Iterator[tuple[str, Any]]:
    """Where each value is, for messages, and the value."""
    for number, line in enumerate(lines, start=1):
        try:
            if line.strip():
                yield f"line {number}", json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"line {number}: {error.msg}") from error


def _from_value(value: Any, path: Path) -> BoxTable:
    """The content of a JSON or npy file."""
    if isinstance(value, Mapping):
        if {"images", "annotations"} <= value.keys():
            return BoxTable(_of_coco(value), path, COCO)
        return BoxTable((((str(k),), boxes) for k, boxes in value.items()), path)
    if not isinstance(value, list) and getattr(value, "dtype", None) != np.dtype(object):
        raise ValueError("holds no dict of image -> boxes (n, 4), and no list of dicts")
    values = list(value)
    keys = values[-1].keys() if values and isinstance(values[-1], Mapping) else ()
    if "ocr_normalized_boxes" in keys:
        return BoxTable(_of_images(values, "ocr_normalized_boxes"), path, IMDB)
    if "bbox" in keys:
        return BoxTable(_of_images(values, "bbox"), path, VILBERT)
    return BoxTable(_of_records((f"entry {i}", v) for i, v in enumerate(values)), path)


def _get(value: Any, key: str, what: str) -> Any:
    """``value[key]``. Raises ValueError about ``what`` where it is no dict with it."""
    if not isinstance(value, Mapping) or key not in value:
        raise ValueError(f"{what}: is no dict with {key}")
    return value[key]


def _of_records(values: Iterable[tuple[str, Any]]) -> Iterator[Entry]:
    """An entry for each dict with ``image`` and ``boxes``."""
    for what, value in values:
        yield (str(_get(value, "image", what)),), _get(value, "boxes", what)


# Keys of an image's names in the dicts of MMF's and ViLBERT's files.
_PATHS = ("image_path", "file_path", "feature_path", "file_name", "image_name")


def _of_images(values: Sequence[Any], boxes_key: str) -> Iterator[Entry]:
    """An entry for each of MMF's or ViLBERT's dicts. The first may be a header without boxes."""
    for i, value in enumerate(values):
        if i == 0 and isinstance(value, Mapping) and boxes_key not in value:
            continue
        boxes = _get(value, boxes_key, f"entry {i}")
        keys = _keys([value[key] for key in _PATHS if value.get(key)], value.get("image_id"))
        if not keys:
            raise ValueError(f"entry {i}: has none of {', '.join(_PATHS)}, image_id")
        yield keys, boxes


def _of_coco(value: Mapping) -> Iterator[Entry]:
    """An entry for each image, its boxes in the order of the annotations."""
    boxes = defaultdict(list)
    for i, annotation in enumerate(value["annotations"]):
        what = f"annotations, entry {i}"
        boxes[_get(annotation, "image_id", what)].append(_get(annotation, "bbox", what))
    for i, image in enumerate(value["images"]):
        image_id = _get(image, "id", f"images, entry {i}")
        paths = [image["file_name"]] if image.get("file_name") else []
        yield _keys(paths, image_id), boxes[image_id]


def _keys(paths: Iterable[Any], image_id: Any) -> tuple[Key, ...]:
    """The keys of an image with these paths and this id, a number or a name."""
    names = [name for path in map(str, paths) for name in (path, os.path.splitext(path)[0])]
    names += [os.path.basename(name) for name in names]
    keys: list[Key] = [name for name in names if name]
    if isinstance(image_id, (int, np.integer)):
        keys.append(int(image_id))
    elif image_id:
        keys.append(str(image_id))
    return tuple(dict.fromkeys(keys))
