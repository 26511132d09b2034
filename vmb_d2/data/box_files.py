"""The files and stores that boxes are read from. docs/extraction.md has their schemas."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import weakref
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import BoxesError, ConfigError, StoreError
from ..output.open_stores import open_reader
from ..utils import safe_pickle as pickles

SAMPLE = 100  # images of a store that are looked at beforehand

logger = logging.getLogger(__name__)


class Entry(NamedTuple):
    """The boxes of one image.

    Attributes:
        keys: names of the image. No two entries may have the same first key.
        boxes: (n, 4).
        number: the image's id, if that is a number.
    """

    keys: tuple[str, ...]
    boxes: Any
    number: int | None = None


class BoxTable:
    """Boxes of many images in one array, so that those of a million images fit in memory.

    Attributes:
        keys: the row of each name; None where it is a name of several.
        numbers: the row of each number.
        values: float64 (n, 4), the boxes of all images.
        sha256: of the names and boxes.

    Raises:
        BoxesError: an image occurs twice, or its boxes aren't finite numbers of shape (n, 4).
    """

    def __init__(self, entries: Iterable[Entry], source: str | Path):
        self.keys: dict[str, int | None] = {}
        self.numbers: dict[int, int] = {}
        self._rows: list[slice] = []
        arrays, count, digest = [np.zeros((0, 4))], 0, hashlib.sha256()
        others: dict[str, int | None] = {}
        for row, entry in enumerate(entries):
            key = entry.keys[0] if entry.keys else f"image {entry.number}"
            if key in self.keys or entry.number in self.numbers:
                raise BoxesError(f"{source}: {key} occurs twice")
            arrays.append(checked(entry.boxes, f"{source}: {key}"))
            self._rows.append(slice(count, count + len(arrays[-1])))
            count += len(arrays[-1])
            digest.update(f"{key}\0".encode(errors="surrogateescape") + arrays[-1].tobytes())
            if entry.keys:
                self.keys[key] = row
            if entry.number is not None:
                self.numbers[entry.number] = row
            for other in entry.keys[1:]:
                others[other] = row if others.get(other, row) == row else None
        self.keys = others | self.keys
        self.values = np.concatenate(arrays)
        self.sha256 = digest.hexdigest()

    def __len__(self) -> int:
        return len(self._rows)

    def boxes(self, row: int) -> np.ndarray:
        """float64 (n, 4), not to be changed."""
        return self.values[self._rows[row]]

    def counts(self, rows: Iterable[int]) -> list[int]:
        """The number of boxes of each row."""
        return [self._rows[row].stop - self._rows[row].start for row in rows]


class StoredBoxes:
    """The boxes in a store of features, with the methods of a BoxTable.

    An image's boxes are read when they are asked for. Those of a sample of images are read at once:
    ``sha256`` is of all names and of the sample's boxes, and ``counts`` are of the sample.

    Args:
        path: of the store, which stays open as long as this object exists.

    Raises:
        StoreError: it can't be opened.
        BoxesError: it has no boxes.
    """

    def __init__(self, path: str | Path):
        self._reader = open_reader(path)
        weakref.finalize(self, self._reader.close)
        self._names = sorted(self._reader.names())
        self.keys = {name: row for row, name in enumerate(self._names)}
        self.numbers: dict[int, int] = {}
        self.values = np.zeros((0, 4))
        digest = hashlib.sha256("\0".join(self._names).encode(errors="surrogateescape"))
        size = min(SAMPLE, len(self))
        self._counts, problem = [], None
        for row in (i * len(self) // size for i in range(size)):
            try:
                boxes = self.boxes(row)
            except BoxesError as error:  # that image fails when its boxes are asked for
                problem = error
                continue
            digest.update(f"{row}\0".encode() + boxes.tobytes())
            self._counts.append(len(boxes))
        if problem and not self._counts:
            raise problem
        self.sha256 = digest.hexdigest()

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

    def counts(self, rows: Collection[int]) -> list[int]:
        """The numbers of boxes in the sample, whatever ``rows`` are."""
        return self._counts


class BoxFile(NamedTuple):
    """What a file holds.

    Attributes:
        table: its boxes.
        kind: in words, if the kind of file determines what its coordinates mean.
        meaning: the values of ``box_format``, ``normalized`` and ``inclusive`` that it determines.
    """

    table: BoxTable | StoredBoxes
    kind: str | None = None
    meaning: Mapping[str, Any] = {}


_IMDB = "an imdb of M4C", {"box_format": "xyxy", "normalized": True}
_COCO = "COCO's annotations", {"box_format": "xywh", "normalized": False}
_VILBERT = "ViLBERT's ground truth", {"box_format": "xyxy", "normalized": False}
_STORE = "a store", {"box_format": "xyxy", "normalized": False, "inclusive": True}


def read_box_file(path: Path) -> BoxFile:
    """Read a file, whose kind is known by its suffix and content, or open a store.

    Raises:
        ConfigError: it is no such file and no store.
        BoxesError, StoreError, OSError, TypeError, ValueError, zipfile.BadZipFile: it can't be
            read or is damaged.
    """
    readers = {".json": _from_json, ".jsonl": _from_lines, ".npy": _from_npy, ".npz": _from_npz}
    reader = readers.get(path.suffix.lower())
    if reader and not path.is_dir():
        return reader(path)
    try:
        return BoxFile(StoredBoxes(path), *_STORE)
    except StoreError as error:
        raise ConfigError(
            f"`boxes_file`={path}: valid are {', '.join(readers)} files and stores of features "
            f"({error})"
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


def _from_json(path: Path) -> BoxFile:
    try:
        return _from_value(json.loads(path.read_bytes()), path)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":  # more than one value: a .jsonl file named .json
            return _from_lines(path)
        raise


def _from_lines(path: Path) -> BoxFile:
    return BoxFile(BoxTable(_lines(path), path))


def _lines(path: Path) -> Iterator[Entry]:
    with open(path, encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                value = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"line {number}: {error.msg}") from error
            yield _record(value, f"line {number}")


def _from_npy(path: Path) -> BoxFile:
    with open(path, "rb") as file:
        return _from_value(pickles.load_npy(file), path)


def _from_npz(path: Path) -> BoxFile:
    with np.load(path, allow_pickle=False) as arrays:
        if not isinstance(arrays, np.lib.npyio.NpzFile):
            raise ValueError("is no npz file")
        return BoxFile(BoxTable((Entry((key,), arrays[key]) for key in arrays.files), path))


def _from_value(value: Any, path: Path) -> BoxFile:
    """The content of a JSON or npy file."""
    if isinstance(value, Mapping):
        if {"image", "boxes"} <= value.keys():
            value = [value]
        elif isinstance(value.get("images"), list) and _dicts(value["images"][:1]):
            return BoxFile(BoxTable(_of_coco(value, path), path), *_COCO)
        else:
            entries = (Entry((str(key),), boxes) for key, boxes in value.items())
            return BoxFile(BoxTable(entries, path))
    if not isinstance(value, list) and getattr(value, "dtype", None) != np.dtype(object):
        raise ValueError("holds no dict of image -> boxes (n, 4), and no list of dicts")
    found = list(value)
    keys = set().union(*_dicts(found))
    if "ocr_normalized_boxes" in keys:
        of_images = {*_PATHS, "image_id", "ocr_normalized_boxes"}
        header = isinstance(found[0], Mapping) and not of_images & found[0].keys()
        of_imdb = _of_images(found, "ocr_normalized_boxes", path, header)
        return BoxFile(BoxTable(of_imdb, path), *_IMDB)
    if "bbox" in keys and keys & {"file_name", "file_path"}:
        return BoxFile(BoxTable(_of_images(found, "bbox", path), path), *_VILBERT)
    records = (_record(entry, f"entry {i}") for i, entry in enumerate(found, start=1))
    return BoxFile(BoxTable(records, path))


def _dicts(values: Iterable[Any]) -> list[Mapping]:
    return [value for value in values if isinstance(value, Mapping)]


def _record(value: Any, what: str) -> Entry:
    if not isinstance(value, Mapping) or not {"image", "boxes"} <= value.keys():
        raise ValueError(f'{what}: is not {{"image": name, "boxes": [...]}}')
    return Entry((str(value["image"]),), value["boxes"])


# Keys of an image's names in the dicts of MMF's and ViLBERT's files.
_PATHS = ("image_path", "file_path", "feature_path", "file_name", "image_name")


def _of_images(
    values: list[Any], boxes_key: str, path: Path, header: bool = False
) -> Iterator[Entry]:
    """An entry for each image of a list of dicts; several dicts may be of one image."""
    found: dict[Any, Entry] = {}
    for i, value in enumerate(values[header:], start=header):
        if not isinstance(value, Mapping) or boxes_key not in value:
            raise ValueError(f"entry {i}: has no {boxes_key}")
        paths = [str(value[key]) for key in _PATHS if value.get(key)]
        keys, number = _names(paths, value.get("image_id"))
        if not keys and number is None:
            raise ValueError(f"entry {i}: has none of {', '.join(_PATHS)}, image_id")
        boxes = checked(value[boxes_key], f"{path}: entry {i}")
        if value.get("num_box", len(boxes)) != len(boxes):
            raise ValueError(f"entry {i}: num_box is {value['num_box']}, of {len(boxes)} boxes")
        first = found.setdefault(keys[0] if keys else number, Entry(keys, boxes, number))
        if not np.array_equal(first.boxes, boxes):
            raise ValueError(f"{keys[0] if keys else number}: occurs with different boxes")
    yield from found.values()


def _of_coco(value: Mapping, path: Path) -> Iterator[Entry]:
    """An entry for each image, its boxes in the order of the annotations."""
    annotations = value.get("annotations")
    if not isinstance(annotations, list):
        raise ValueError("has images but no list of annotations")
    boxes: dict[Any, list] = {}
    for i, annotation in enumerate(annotations):
        if not isinstance(annotation, Mapping) or not {"image_id", "bbox"} <= annotation.keys():
            raise ValueError(f"annotations, entry {i}: has no image_id or no bbox")
        boxes.setdefault(annotation["image_id"], []).append(annotation["bbox"])
    crowds = sum(bool(annotation.get("iscrowd")) for annotation in annotations)
    if crowds:
        words = "%s: %d of %d boxes are of crowds (iscrowd); they are taken like the others"
        logger.info(words, path, crowds, len(annotations))
    for i, image in enumerate(value["images"]):
        if not isinstance(image, Mapping) or "id" not in image:
            raise ValueError(f"images, entry {i}: has no id")
        paths = [str(image["file_name"])] if image.get("file_name") else []
        keys, number = _names(paths, image["id"])
        yield Entry(keys, boxes.pop(image["id"], []), number)
    if boxes:
        words = "%s: %d images with annotations are not among its images: left out"
        logger.warning(words, path, len(boxes))


def _names(paths: Iterable[str], image_id: Any) -> tuple[tuple[str, ...], int | None]:
    """The keys of an image with these paths, and its id if that is a number."""
    is_number = isinstance(image_id, (int, np.integer)) and not isinstance(image_id, bool)
    keys = [name for path in paths for name in (path, os.path.splitext(path)[0])]
    keys += [os.path.basename(key) for key in keys]
    if image_id is not None and not is_number:
        keys.append(str(image_id))
    return tuple(dict.fromkeys(filter(None, keys))), int(image_id) if is_number else None
