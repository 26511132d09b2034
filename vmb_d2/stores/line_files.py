"""Files of lines, of which each begins with its image's name, with an index beside them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ..errors import OutputError, StoreError
from ..utils.files import check_in_place, sync_folder, write_at, write_whole
from .tsv_index import Index, Line, list_lines


def problems_in_a_tsv(name: str) -> Iterator[tuple[str, str]]:
    """(name, reason) where the first column of a TSV can't have this name."""
    if any(character in name for character in '\t\n\r"\0'):
        yield name, "a tab, line break or quotation mark, which a TSV can't hold"
    try:
        name.encode()
    except UnicodeEncodeError:
        yield name, "not UTF-8"


class LineWriter:
    """Appends lines to a TSV, and to its index, when it is flushed; until then they wait.

    A TSV that another program made is added to as well; it gets an index. What a death left behind
    its whole lines is cut off.

    Args:
        path: of the TSV, which is made where there is none.
        index: which kind of index it has.
        check: raises StoreError for a line that isn't whole.
        keep: names of the lines with which the TSV has to begin. What follows them is cut off.

    Attributes:
        found: the names of the lines that were there, in their order.

    Raises:
        OutputError: it can't be opened or written to, is something else, or begins otherwise.
    """

    def __init__(
        self,
        path: Path,
        index: type[Index],
        check: Callable[[bytes], object],
        keep: Sequence[str] | None = None,
    ):
        self.path = path
        self._index = index
        self._index_path = index.path(path)
        self._waiting: list[tuple[str, bytes]] = []
        self._tsv_file = self._index_file = None
        try:
            self._open(check, keep)
        except StoreError as error:
            self.abandon()
            raise OutputError(str(error)) from error
        except OSError as error:
            self.abandon()
            raise OutputError(f"{error.filename or path}: {error.strerror}") from error

    def _open(self, check: Callable[[bytes], object], keep: Sequence[str] | None) -> None:
        self._tsv_file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        size = os.fstat(self._tsv_file).st_size
        listing = list_lines(self.path, self._index, check, check_all=True)
        if size and not listing.lines and not listing.has_index:
            raise StoreError(f"{self.path}: has no whole line")
        if keep is not None and not listing.keep_only(keep):
            raise StoreError(f"{self.path}: its lines are not of the images of the file beside it")
        if not listing.complete:
            os.fsync(self._tsv_file)  # before the index says that it is there
            entries = b"".join(self._index.entry(line) for line in listing.lines)
            write_whole(self._index_path, entries)
        self._index_file = os.open(self._index_path, os.O_RDWR)
        if size > listing.end:
            os.ftruncate(self._tsv_file, listing.end)
            os.fsync(self._tsv_file)
        sync_folder(self.path.parent)
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
        """Make what was written survive any death.

        Raises OutputError; then nothing of it is left.
        """
        if not self._waiting:
            return
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
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._index_file, self._index_end)
                os.ftruncate(self._tsv_file, self._end)
            raise OutputError(f"{self.path}: can't be written: {error.strerror}") from error
        self._end = end
        self._index_end += sum(map(len, entries))
        self._waiting.clear()

    def abandon(self) -> None:
        """Let go of the files without a further write."""
        self._waiting.clear()
        for descriptor in (self._tsv_file, self._index_file):
            if descriptor is not None:
                os.close(descriptor)
        self._tsv_file = self._index_file = None


class LineReader:
    """Reads such a TSV; one without an index, or with one that doesn't fit, is listed at first.

    Of lines that have one name, the last counts.

    Args:
        path, index, check: see :class:`LineWriter`.

    Attributes:
        names: of the lines, each once, in the TSV's order.

    Raises:
        StoreError: it can't be read, is something else, or ends in the middle of a line.
    """

    def __init__(self, path: Path, index: type[Index], check: Callable[[bytes], object]):
        self.path = path
        try:
            self._tsv_file = os.open(path, os.O_RDONLY)
            try:
                listing = list_lines(path, index, check, check_all=False)
            except BaseException:
                self.close()
                raise
        except OSError as error:
            raise StoreError(f"{path}: can't be read: {error.strerror}") from error
        if listing.is_cut:
            self.close()
            raise StoreError(f"{path}: ends in the middle of an image: was it cut?")
        self.names = {line.name: line for line in listing.lines}

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

    def close(self) -> None:
        """Let go of the file."""
        if self._tsv_file is not None:
            os.close(self._tsv_file)
            self._tsv_file = None
