"""The TSVs of LXMERT and of bottom-up-attention: a line an image, and an index beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from ..errors import StoreError
from ..structures.regions import RegionFeatures
from .base import FeatureReader, FeatureWriter
from .line_files import LineReader, LineWriter, problems_in_a_tsv
from .tsv_index import NameIndex
from .tsv_lines import BUTD_COLUMNS, LXMERT_COLUMNS, decode, encode


class TSVWriter(FeatureWriter):
    """Appends a line an image, see :class:`vmb_d2.stores.line_files.LineWriter`."""

    columns: ClassVar[tuple[str, ...]]
    only_dtype = "float32"

    def __init__(self, path: str | Path, dtype: str = "float32"):
        super().__init__(path, dtype)
        self._lines = LineWriter(self.path, NameIndex, self._check)

    def _check(self, line: bytes) -> None:
        decode(self.columns, line)

    @classmethod
    def problems(cls, names):
        for name in names:
            yield from problems_in_a_tsv(name)

    @classmethod
    def problem_of(cls, regions):
        return None if len(regions) else "no regions, at which its readers stop"

    def __contains__(self, name: str) -> bool:
        return name in self._lines

    def write(self, name: str, regions: RegionFeatures) -> None:
        self._lines.write(name, encode(self.columns, name, regions))

    def flush(self) -> None:
        self._lines.flush()

    def close(self) -> None:
        self.flush()
        self.abandon()

    def abandon(self) -> None:
        self._lines.abandon()


class TSVReader(FeatureReader):
    """Reads such a TSV, see :class:`vmb_d2.stores.line_files.LineReader`."""

    columns: ClassVar[tuple[str, ...]]

    def __init__(self, path: str | Path):
        super().__init__(path)
        self._lines = LineReader(self.path, NameIndex, self._decode)

    def _decode(self, line: bytes) -> RegionFeatures:
        return decode(self.columns, line)

    def names(self) -> Iterator[str]:
        return iter(self._lines.names)

    def __len__(self) -> int:
        return len(self._lines.names)

    def __contains__(self, name: str) -> bool:
        return name in self._lines.names

    def read(self, name: str) -> RegionFeatures:
        line = self._lines.line(name)
        try:
            return self._decode(line)
        except StoreError as error:
            raise StoreError(f"{self.path}: {name!r}: {error}") from error

    def close(self) -> None:
        self._lines.close()


class LXMERTWriter(TSVWriter):
    """Writes the TSV that LXMERT reads."""

    columns = LXMERT_COLUMNS

    @staticmethod
    def bytes_per_image(regions: int, dimension: int, classes: int, itemsize: int) -> int:
        return regions * (dimension * 4 + 4 * 4 + 2 * 8 + 2 * 4) * 4 // 3 + 100


class LXMERTReader(TSVReader):
    """Reads the TSVs of LXMERT."""

    columns = LXMERT_COLUMNS


class BUTDWriter(TSVWriter):
    """Writes the TSV of bottom-up-attention."""

    columns = BUTD_COLUMNS

    @staticmethod
    def bytes_per_image(regions: int, dimension: int, classes: int, itemsize: int) -> int:
        return regions * (dimension * 4 + 4 * 4) * 4 // 3 + 100


class BUTDReader(TSVReader):
    """Reads the TSVs of bottom-up-attention."""

    columns = BUTD_COLUMNS
