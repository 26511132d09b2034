"""Where each image's line is in a TSV: kept in an index beside it, or found by reading it once."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ..errors import StoreError
from .base import store_errors

_LONGEST_NAME = 4096  # bytes, with the tab
_BEGINNING = 1 << 20  # bytes of a TSV that show what it is


class Line(NamedTuple):
    """An image's line: its first byte, its length with the line's end, and the image's name."""

    offset: int
    length: int
    name: str

    @property
    def end(self) -> int:
        return self.offset + self.length


class Index:
    """A line for each line of a TSV, in their order: its offset, length and name.

    ``x.tsv.index`` of ``x.tsv``, which is this project's own.
    """

    @staticmethod
    def path(tsv: Path) -> Path:
        """The index of a TSV."""
        return tsv.with_name(f"{tsv.name}.index")

    @staticmethod
    def entry(line: Line) -> bytes:
        """The line of the index for a line of the TSV."""
        return f"{line.offset}\t{line.length}\t{line.name}\n".encode()

    @staticmethod
    def begin(entry: bytes) -> tuple[int, str | None]:
        """The offset in an entry, and the name if it has one. Raises ValueError."""
        offset, _length, name = entry.decode().removesuffix("\n").split("\t")
        return int(offset), name


class OffsetIndex(Index):
    """``x.lineidx`` of ``x.tsv``, as Oscar has it: the byte at which each line begins."""

    @staticmethod
    def path(tsv: Path) -> Path:
        return tsv.with_suffix(".lineidx")

    @staticmethod
    def entry(line: Line) -> bytes:
        return b"%d\n" % line.offset

    @staticmethod
    def begin(entry: bytes) -> tuple[int, str | None]:
        return int(entry), None


@dataclass
class Listing:
    """The lines of a TSV.

    Attributes:
        lines: all whole ones, in the TSV's order.
        has_index: whether the TSV has an index, and one that fits it.
        complete: whether the index lists exactly these lines.
        is_cut: whether the TSV, without an index that fits it, ends in the middle of a line.
    """

    lines: list[Line] = field(default_factory=list)
    has_index: bool = False
    complete: bool = False
    is_cut: bool = False

    @property
    def end(self) -> int:
        return self.lines[-1].end if self.lines else 0


def list_lines(
    path: Path, index: type[Index], check: Callable[[bytes], object], check_all: bool
) -> Listing:
    """List a TSV's lines. Nothing is written, and one line at a time is in memory.

    With an index that fits, only what follows the indexed lines is read, up to a line that isn't
    whole: it was being written when the writer crashed. Without one, the whole TSV is read.

    Args:
        index: which kind of index it has.
        check: raises an error for a line that isn't whole.
        check_all: whether to check the lines of a TSV without index too.

    Raises:
        StoreError: a line of a TSV without index has no name, or fails the check.
        OSError: the files can't be read.
    """
    with open(path, "rb") as tsv:
        listing = _indexed(tsv, index, index.path(path))
        offset = listing.end
        tsv.seek(offset)
        content = b""
        for content in tsv:
            if content.endswith(b"\n") and content.strip(b"\r\n"):
                try:
                    with store_errors(f"{path}: at byte {offset}"):
                        line = Line(offset, len(content), _name_of(content))
                        if listing.has_index or check_all:
                            check(content)
                except StoreError:
                    if listing.has_index:
                        break
                    raise
                listing.lines.append(line)
                listing.complete = False
            offset += len(content)
        if not listing.has_index:
            listing.is_cut = content != b"" and not content.endswith(b"\n")
        return listing


def _indexed(tsv: BinaryIO, index: type[Index], index_path: Path) -> Listing:
    """The lines that the index lists; none where it doesn't fit. Its last entry can be partial."""
    try:
        content = index_path.read_bytes()
    except FileNotFoundError:
        return Listing()
    entries = content.splitlines(keepends=True)
    if entries and not entries[-1].endswith(b"\n"):
        del entries[-1]
    try:
        begins = [index.begin(entry) for entry in entries]
        named = [(offset, name or _name_at(tsv, offset)) for offset, name in begins]
        fits = all(_name_at(tsv, offset) == name for offset, name in named[:1] + named[-1:])
        tsv.seek(begins[-1][0] if begins else 0)
    except (ValueError, OverflowError, OSError, StoreError):  # no numbers, or not of this TSV
        return Listing()
    last = tsv.readline()
    offsets = [offset for offset, _ in begins]
    if not fits or offsets != sorted(set(offsets)) or not (last.endswith(b"\n") or not begins):
        return Listing()
    ends = [*offsets[1:], offsets[-1] + len(last)] if offsets else []
    lines = [Line(at, end - at, name) for (at, name), end in zip(named, ends, strict=True)]
    return Listing(lines, has_index=True, complete=content == b"".join(map(index.entry, lines)))


def _name_at(tsv: BinaryIO, offset: int) -> str:
    """The name of the line that begins at ``offset``. Raises an error where none does."""
    before = min(offset, 1)
    found = os.pread(tsv.fileno(), before + _LONGEST_NAME, offset - before)
    if found[:before] not in (b"", b"\n"):
        raise StoreError("no beginning of a line")
    return _name_of(found[before:])


def _name_of(line: bytes) -> str:
    """The name in a line's first column. Raises StoreError, or ValueError where it isn't UTF-8."""
    name, tab, _ = line.partition(b"\t")
    if not name or not tab:
        raise StoreError("no image's line")
    return name.decode()


def first_line_of(path: Path) -> bytes:
    """The first line of a file, or its beginning; empty where it can't be read."""
    try:
        with open(path, "rb") as file:
            return file.readline(_BEGINNING)
    except OSError:
        return b""
