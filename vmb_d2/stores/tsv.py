"""The TSVs of LXMERT and of bottom-up-attention: a line an image, and an index beside it."""

from __future__ import annotations

import base64
import functools
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..errors import StoreError
from ..structures.regions import RegionFeatures
from .base import store_errors
from .fields import regions_of
from .line_files import LineReader, LinesReader, LinesWriter, LineWriter
from .line_index import Index, first_line_of

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

# Of each column with an array: dtype, and the shape for N regions (-1: any).
_ARRAYS: dict[str, tuple[str, tuple[int, ...]]] = {
    "objects": ("<i8", ()),
    "objects_conf": ("<f4", ()),
    "attrs_id": ("<i8", ()),
    "attrs_conf": ("<f4", ()),
    "bbox": ("<f4", (4,)),
    "features": ("<f4", (-1,)),
}


def _kept(columns: tuple[str, ...]) -> frozenset[str]:
    return frozenset(columns) - {"name", "num_boxes", "features"}


def encode(columns: tuple[str, ...], name: str, regions: RegionFeatures) -> bytes:
    """The line of an image. What the image lacks is written as zeros."""
    fields = [name.encode()]
    for column in columns[1:]:
        value = getattr(regions, column)
        if column in _ARRAYS:
            dtype, shape = _ARRAYS[column]
            array = np.zeros((len(regions), *shape)) if value is None else value
            fields.append(base64.b64encode(np.asarray(array, dtype).tobytes()))
        else:
            number = len(regions) if column == "num_boxes" else value or 0
            fields.append(str(number).encode())
    return b"\t".join(fields) + b"\n"


def decode(columns: tuple[str, ...], line: bytes) -> RegionFeatures:
    """The inverse of :func:`encode`; what the image lacked is None again.

    Raises StoreError or ValueError for anything but a whole line.
    """
    texts = line.rstrip(b"\r\n").split(b"\t")
    if len(texts) != len(columns):
        raise StoreError(f"a line of {len(texts)} columns, not {len(columns)}")
    fields = dict(zip(columns[1:], texts[1:], strict=True))
    count = int(fields["num_boxes"])
    known: dict[str, Any] = {
        column: _array(column, text, count) if column in _ARRAYS else int(text)
        for column, text in fields.items()
    }
    lacked = {key for key in ("image_width", "image_height") if not known[key]}
    if "attrs_conf" in known and not known["attrs_conf"].any():
        lacked |= {"attrs_id", "attrs_conf"}
    if count and not known["bbox"].any():
        lacked.add("bbox")
    if count and "objects" in known and not known["objects_conf"].any():
        lacked |= {"objects_conf"} if known["objects"].any() else {"objects_conf", "objects"}
    return regions_of(known.pop("features"), known | dict.fromkeys(lacked))


def _array(column: str, text: bytes, count: int) -> np.ndarray:
    dtype, shape = _ARRAYS[column]
    values = np.frombuffer(base64.b64decode(text, validate=True), dtype)
    if not count:
        shape = tuple(max(size, 0) for size in shape)  # nothing tells the features' dimension
    return values.reshape(count, *shape).astype(np.dtype(dtype).newbyteorder("="))


class TSVWriter(LinesWriter):
    """Appends a line an image, see :class:`vmb_d2.stores.line_files.LineWriter`."""

    columns: ClassVar[tuple[str, ...]]

    def _open(self) -> None:
        check = functools.partial(decode, self.columns)
        self._files = [LineWriter(self.path, Index, check, self._opened)]

    def write(self, name: str, regions: RegionFeatures) -> None:
        self._files[0].write(name, encode(self.columns, name, regions))


class TSVReader(LinesReader):
    """Reads such a TSV, see :class:`vmb_d2.stores.line_files.LineReader`."""

    columns: ClassVar[tuple[str, ...]]

    def _open(self) -> None:
        check = functools.partial(decode, self.columns)
        self._lines = LineReader(self.path, Index, check, self._opened)

    @classmethod
    def is_store(cls, path: Path) -> bool:
        texts = first_line_of(path).rstrip(b"\r\n").split(b"\t")
        return len(texts) == len(cls.columns) and all(
            text.isdigit()
            for column, text in list(zip(cls.columns, texts, strict=True))[1:]
            if column not in _ARRAYS
        )

    def read(self, name: str) -> RegionFeatures:
        line = self._lines.line(name)
        with store_errors(f"{self.path}: {name!r}"):
            return decode(self.columns, line)


class LXMERTWriter(TSVWriter):
    """Writes the TSV that LXMERT reads."""

    columns = LXMERT_COLUMNS
    keeps = _kept(columns)
    without = dict.fromkeys(keeps, "as zeros")


class LXMERTReader(TSVReader):
    """Reads the TSVs of LXMERT."""

    columns = LXMERT_COLUMNS


class BUTDWriter(TSVWriter):
    """Writes the TSV of bottom-up-attention."""

    columns = BUTD_COLUMNS
    keeps = _kept(columns)
    without = dict.fromkeys(keeps, "as zeros")


class BUTDReader(TSVReader):
    """Reads the TSVs of bottom-up-attention."""

    columns = BUTD_COLUMNS
