"""A line of the TSVs of LXMERT and of bottom-up-attention."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np

from ..errors import StoreError, first_line
from ..structures.regions import RegionFeatures

# The columns, as RegionFeatures calls them; the first is the name.
LXMERT_COLUMNS = (
    "name",
    "image_height",
    "image_width",
    "objects",
    "objects_conf",
    "attrs_id",
    "attrs_conf",
    "num_boxes",
    "bbox",
    "features",
)
BUTD_COLUMNS = ("name", "image_width", "image_height", "num_boxes", "bbox", "features")

# Of each column with an array: dtype, and how many numbers a region has (features: any).
_ARRAYS = {
    "objects": ("<i8", 1),
    "objects_conf": ("<f4", 1),
    "attrs_id": ("<i8", 1),
    "attrs_conf": ("<f4", 1),
    "bbox": ("<f4", 4),
    "features": ("<f4", None),
}
_BEGINNING = 1 << 20  # bytes of a TSV that show which it is


def encode(columns: tuple[str, ...], name: str, regions: RegionFeatures) -> bytes:
    """The line of an image. What the image lacks is written as zeros."""
    fields = [name.encode()]
    for column in columns[1:]:
        value = getattr(regions, column)
        if column in _ARRAYS:
            dtype, width = _ARRAYS[column]
            array = np.zeros(len(regions) * width) if value is None else value
            fields.append(base64.b64encode(np.ascontiguousarray(array, dtype)))
        else:
            number = len(regions) if column == "num_boxes" else value or 0
            fields.append(str(number).encode())
    return b"\t".join(fields) + b"\n"


def decode(columns: tuple[str, ...], line: bytes) -> RegionFeatures:
    """The inverse of :func:`encode`; what the image lacked is None again.

    Raises StoreError, without the file's name, for anything but a whole line.
    """
    fields = line.rstrip(b"\r\n").split(b"\t")
    if len(fields) != len(columns):
        raise StoreError(f"a line of {len(fields)} columns, not {len(columns)}")
    texts = dict(zip(columns, fields, strict=True))
    del texts["name"]
    try:
        numbers = {k: int(text) for k, text in texts.items() if k not in _ARRAYS}
        count = numbers["num_boxes"]
        if count < 0:
            raise ValueError(f"num_boxes is {count}")
        arrays = {k: _array(k, text, count) for k, text in texts.items() if k in _ARRAYS}
    except ValueError as error:
        raise StoreError(f"no whole line ({first_line(error)})") from error
    lacked = set()
    if "attrs_conf" in arrays and not arrays["attrs_conf"].any():
        lacked |= {"attrs_id", "attrs_conf"}
    if count and not arrays["bbox"].any():
        lacked.add("bbox")
    if count and "objects" in arrays and not arrays["objects_conf"].any():
        lacked |= {"objects_conf"} if arrays["objects"].any() else {"objects_conf", "objects"}
    lacked |= {key for key in ("image_width", "image_height") if not numbers[key]}
    known = {"objects": None, "cls_prob": None, **numbers, **arrays, **dict.fromkeys(lacked)}
    return RegionFeatures(**known)


def _array(column: str, text: bytes, count: int) -> np.ndarray:
    dtype, width = _ARRAYS[column]
    values = np.frombuffer(base64.b64decode(text, validate=True), dtype)
    if column == "features":
        width = values.size // count if count else 0
    shape = (count,) if width == 1 and column != "features" else (count, width)
    return values.reshape(shape).astype(np.dtype(dtype).newbyteorder("="))


def looks_like(columns: tuple[str, ...], path: Path) -> bool:
    """Whether a file's first line has these columns, as far as its beginning shows it."""
    try:
        with open(path, "rb") as file:
            line = file.readline(_BEGINNING)
    except OSError:
        return False
    fields = line.rstrip(b"\r\n").split(b"\t")
    return len(fields) == len(columns) and all(
        field.isdigit()
        for column, field in list(zip(columns, fields, strict=True))[1:]
        if column not in _ARRAYS
    )
