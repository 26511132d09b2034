"""Stores that are TSVs: a line an image, which begins with its name, and an index beside it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from ..errors import StoreError
from ..utils.files import check_in_place, sync_folder, write_at, write_whole
from .base import NOT_UTF8, FeatureReader, FeatureWriter, is_utf8, output_errors
from .line_index import Index, Line, list_lines


class LineWriter:
    """Appends lines to a TSV, and to its index, when it is flushed; until then they wait.

    A TSV that another program made is added to as well; it gets an index. What a crash left after
    the whole lines is cut off.

    Args:
        path: of the TSV, which is made where there is none.
        index: which kind of index it has.
        check: raises an error for a line that isn't whole.
        keep: names of the lines with which the TSV has to begin; lines after these are cut off.
        opened: gets what closes the files.

    Attributes:
        found: the names of the lines that were there, in their order.

    Raises:
        OSError: it can't be opened or written to.
        StoreError: it is something else, or begins with other lines.
    """

    def __init__(
        self,
        path: Path,
        index: type[Index],
        check: Callable[[bytes], object],
        opened: contextlib.ExitStack,
        keep: Sequence[str] | None = None,
    ):
        self.path = path
        self._index = index
        self._waiting: list[tuple[str, bytes]] = []
        self._tsv_file = _open(path, os.O_RDWR | os.O_CREAT, opened)
        size = os.fstat(self._tsv_file).st_size
        listing = list_lines(path, index, check, check_all=True)
        if size and not listing.lines and not listing.has_index:
            raise StoreError(f"{path}: has no whole line")
        if keep is not None:
            listing.complete &= len(listing.lines) == len(keep)
            del listing.lines[len(keep) :]
            if [line.name for line in listing.lines] != list(keep):
                raise StoreError(f"{path}: its lines are not of the images of the file beside it")
        self._index_path = index.path(path)
        if not listing.complete:
            os.fsync(self._tsv_file)  # before the index lists it
            write_whole(self._index_path, b"".join(map(index.entry, listing.lines)))
        self._index_file = _open(self._index_path, os.O_RDWR, opened)
        if size > listing.end:
            os.ftruncate(self._tsv_file, listing.end)
            os.fsync(self._tsv_file)
        sync_folder(path.parent)
        self.found = [line.name for line in listing.lines]
        self._names = set(self.found)
        self._end = listing.end
        self._index_end = os.fstat(self._index_file).st_size

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def write(self, name: str, line: bytes) -> None:
        """Add a line, ``b"\\n"`` at its end."""
        self._waiting.append((name, line))
        self._names.add(name)

    def flush(self) -> None:
        """Sync what was written to the disk. Raises OutputError; then nothing of it is left."""
        if self._waiting:
            with output_errors(self.path, "can't be written"):
                self._append()
            self._waiting.clear()

    def _append(self) -> None:
        end, entries = self._end, []
        try:
            check_in_place(os.fstat(self._tsv_file), self.path)
            check_in_place(os.fstat(self._index_file), self._index_path)
            for name, line in self._waiting:
                write_at(self._tsv_file, line, end)
                entries.append(self._index.entry(Line(end, len(line), name)))
                end += len(line)
            os.fsync(self._tsv_file)
            write_at(self._index_file, b"".join(entries), self._index_end)
            os.fsync(self._index_file)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._index_file, self._index_end)
                os.ftruncate(self._tsv_file, self._end)
            raise
        self._end = end
        self._index_end += sum(map(len, entries))


class LineReader:
    """Reads such a TSV; one without an index, or with one that doesn't fit, is read once at first.

    Of several lines with one name, the last counts.

    Args:
        path, index, check, opened: see :class:`LineWriter`.

    Attributes:
        names: of the lines, each once, in the TSV's order.

    Raises:
        OSError: it can't be read.
        StoreError: it is something else, or ends in the middle of a line.
    """

    def __init__(
        self,
        path: Path,
        index: type[Index],
        check: Callable[[bytes], object],
        opened: contextlib.ExitStack,
    ):
        self.path = path
        listing = list_lines(path, index, check, check_all=False)
        if listing.is_cut:
            raise StoreError(f"{path}: ends in the middle of an image: was it cut?")
        self.names = {line.name: line for line in listing.lines}
        self._tsv_file = _open(path, os.O_RDONLY, opened)

    def line(self, name: str) -> bytes:
        """The line of that name. Raises StoreError where there is none, or it is elsewhere."""
        line = self.names.get(name)
        if line is None:
            raise StoreError(f"{self.path}: has no image {name!r}")
        try:
            content = os.pread(self._tsv_file, line.length, line.offset)
        except OSError as error:
            raise StoreError(f"{self.path}: can't be read: {error.strerror}") from error
        if not content.startswith(name.encode() + b"\t") or not content.endswith(b"\n"):
            raise StoreError(f"{self.path}: {name!r}: not where the index says")
        return content


def _open(path: Path, flags: int, opened: contextlib.ExitStack) -> int:
    """The descriptor of a file, which ``opened`` closes."""
    descriptor = os.open(path, flags, 0o666)
    opened.callback(os.close, descriptor)
    return descriptor


class LinesWriter(FeatureWriter):
    """Writes a store of TSVs, flushed in their order. An image is there if the last file has it."""

    only_dtype = "float32"
    is_base64 = True
    _files: Sequence[LineWriter]

    @classmethod
    def problems(cls, names):
        for name in names:
            if any(character in name for character in '\t\n\r"\0'):
                yield name, "a tab, line break or quotation mark, which a TSV can't hold"
            if not is_utf8(name):
                yield name, NOT_UTF8

    @classmethod
    def problem_of(cls, regions):
        return None if len(regions) else "no regions, at which its readers stop"

    def present(self, names: Iterable[str]) -> set[str]:
        return {name for name in names if name in self._files[-1]}

    def flush(self) -> None:
        for file in self._files:
            file.flush()


class LinesReader(FeatureReader):
    """Reads a store of TSVs, whose images are those of ``_lines``."""

    _lines: LineReader

    def names(self) -> Iterator[str]:
        return iter(self._lines.names)

    def __len__(self) -> int:
        return len(self._lines.names)

    def __contains__(self, name: str) -> bool:
        return name in self._lines.names
