"""The TSVs of LXMERT and of bottom-up-attention: a line an image, and an index beside it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from ..errors import OutputError, StoreError
from ..files import write_at, write_whole
from ..regions import RegionFeatures
from .base import FeatureReader, FeatureWriter
from .disk import check_in_place, sync_folder
from .tsv_index import Line, index_path, list_lines
from .tsv_lines import BUTD_COLUMNS, LXMERT_COLUMNS, decode, encode


class TSVWriter(FeatureWriter):
    """Appends lines to a TSV, and to its index, when it is flushed; until then they wait.

    A TSV that another program made is added to as well; it gets an index.
    """

    columns: ClassVar[tuple[str, ...]]
    keeps_dtype = False

    def __init__(self, path: str | Path, dtype: str = "float32"):
        super().__init__(path, dtype)
        self._waiting: list[tuple[str, bytes]] = []
        self._index = index_path(self.path)
        self._tsv_file = self._index_file = None
        try:
            self._open()
        except StoreError as error:
            self.abandon()
            raise OutputError(str(error)) from error
        except OSError as error:
            self.abandon()
            raise OutputError(f"{error.filename or path}: {error.strerror}") from error

    def _open(self) -> None:
        self._tsv_file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        size = os.fstat(self._tsv_file).st_size
        listing = list_lines(self.path, self._check, check_all=True)
        if size and not listing.lines and not listing.has_index:
            raise StoreError(f"{self.path}: has no whole line")
        if not listing.complete:
            os.fsync(self._tsv_file)  # before the index says that it is there
            write_whole(self._index, b"".join(line.in_index() for line in listing.lines))
        self._index_file = os.open(self._index, os.O_RDWR)
        if size > listing.end:
            os.ftruncate(self._tsv_file, listing.end)
            os.fsync(self._tsv_file)
        sync_folder(self.path.parent)
        self._names = {line.name for line in listing.lines}
        self._end = listing.end
        self._index_end = os.fstat(self._index_file).st_size

    def _check(self, line: bytes) -> None:
        decode(self.columns, line)

    @classmethod
    def problems(cls, names):
        for name in names:
            if any(character in name for character in '\t\n\r"\0'):
                yield name, "a tab, line break or quotation mark, which a TSV can't hold"
            try:
                name.encode()
            except UnicodeEncodeError:
                yield name, "not UTF-8"

    @classmethod
    def problem_of(cls, regions):
        return None if len(regions) else "no regions, at which its readers stop"

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def write(self, name: str, regions: RegionFeatures) -> None:
        self._waiting.append((name, encode(self.columns, name, regions)))
        self._names.add(name)

    def flush(self) -> None:
        if not self._waiting:
            return
        end, entries = self._end, []
        try:
            check_in_place(os.fstat(self._tsv_file), self.path)
            check_in_place(os.fstat(self._index_file), self._index)
            for name, line in self._waiting:
                write_at(self._tsv_file, line, end)
                entries.append(Line(end, len(line), name).in_index())
                end += len(line)
            os.fsync(self._tsv_file)
            write_at(self._index_file, b"".join(entries), self._index_end)
            os.fsync(self._index_file)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._index_file, self._index_end)
                os.ftruncate(self._tsv_file, self._end)
            raise OutputError(f"{self.path}: can't be written: {error.strerror}") from error
        self._end = end
        self._index_end += sum(map(len, entries))
        self._waiting.clear()

    def close(self) -> None:
        self.flush()
        self.abandon()

    def abandon(self) -> None:
        self._waiting.clear()
        for descriptor in (self._tsv_file, self._index_file):
            if descriptor is not None:
                os.close(descriptor)
        self._tsv_file = self._index_file = None


class TSVReader(FeatureReader):
    """Reads such a TSV; one without an index, or with one that doesn't fit, is listed at first.

    An image whose name comes twice is what its last line says.
    """

    columns: ClassVar[tuple[str, ...]]

    def __init__(self, path: str | Path):
        super().__init__(path)
        try:
            self._tsv_file = os.open(self.path, os.O_RDONLY)
            try:
                listing = list_lines(self.path, self._decode, check_all=False)
            except BaseException:
                self.close()
                raise
        except OSError as error:
            raise StoreError(f"{path}: can't be read: {error.strerror}") from error
        if listing.is_cut:
            self.close()
            raise StoreError(f"{path}: ends in the middle of an image: was it cut?")
        self._lines = {line.name: line for line in listing.lines}

    def _decode(self, line: bytes) -> RegionFeatures:
        return decode(self.columns, line)

    def names(self) -> Iterator[str]:
        return iter(self._lines)

    def __len__(self) -> int:
        return len(self._lines)

    def __contains__(self, name: str) -> bool:
        return name in self._lines

    def read(self, name: str) -> RegionFeatures:
        line = self._lines.get(name)
        if line is None:
            raise StoreError(f"{self.path}: has no image {name!r}")
        try:
            content = os.pread(self._tsv_file, line.length, line.offset)
        except OSError as error:
            raise StoreError(f"{self.path}: can't be read: {error.strerror}") from error
        try:
            if not content.startswith(name.encode() + b"\t") or not content.endswith(b"\n"):
                raise StoreError("not where the index says")
            return self._decode(content)
        except StoreError as error:
            raise StoreError(f"{self.path}: {name!r}: {error}") from error

    def close(self) -> None:
        if self._tsv_file is not None:
            os.close(self._tsv_file)
            self._tsv_file = None


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
