"""Where each image's line is in a TSV: kept in an index beside it, or found by reading it once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ..errors import StoreError

_SAMPLES = 16  # lines of an index that are compared with the TSV
_LONGEST_NAME = 4096  # bytes, with the tab
_MOST_DIGITS = 18  # of an offset that a file can have


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
    def lines(tsv: BinaryIO, entries: Sequence[bytes]) -> Iterator[Line]:
        """The lines of the entries, up to the first entry that can't be one of this TSV."""
        for entry in entries:
            offset, _, rest = entry.partition(b"\t")
            length, _, name = rest.partition(b"\t")
            try:
                line = Line(int(offset), int(length), name.decode().removesuffix("\n"))
            except ValueError:
                return
            if Index.entry(line) != entry or line.length <= 0:
                return
            yield line


class OffsetIndex(Index):
    """``x.lineidx`` of ``x.tsv``, as Oscar has it: the byte at which each line begins.

    A line ends where the next one begins, and its name is read from the TSV.
    """

    @staticmethod
    def path(tsv: Path) -> Path:
        return tsv.with_suffix(".lineidx")

    @staticmethod
    def entry(line: Line) -> bytes:
        return b"%d\n" % line.offset

    @staticmethod
    def lines(tsv: BinaryIO, entries: Sequence[bytes]) -> Iterator[Line]:
        begun: list[tuple[int, str]] = []
        for entry in entries:
            digits = entry.strip()
            offset = int(digits) if digits.isdigit() and len(digits) <= _MOST_DIGITS else -1
            name = _name_at(tsv, offset) if offset > (begun[-1][0] if begun else -1) else None
            if name is None:
                break
            begun.append((offset, name))
        # A crash can leave the last entry in part. Other programs' offsets may count characters.
        if len(begun) < len(entries) - 1 or not begun:
            return
        tsv.seek(begun[-1][0])
        last = tsv.readline()
        if not last.endswith(b"\n"):
            return
        ends = [offset for offset, _ in begun[1:]] + [begun[-1][0] + len(last)]
        for (offset, name), end in zip(begun, ends, strict=True):
            yield Line(offset, end - offset, name)


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
        check: raises StoreError for a line that isn't whole.
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
                    line = Line(offset, len(content), _name_of(content))
                    if listing.has_index or check_all:
                        check(content)
                except StoreError as error:
                    if listing.has_index:
                        break
                    raise StoreError(f"{path}: at byte {offset}: {error}") from error
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
    listing = Listing(has_index=True)
    for line in index.lines(tsv, content.splitlines(keepends=True)):
        if line.offset < listing.end:
            break
        listing.lines.append(line)
    lines = listing.lines
    listing.complete = content == b"".join(map(index.entry, lines))
    samples = lines[:: len(lines) // _SAMPLES + 1] + lines[-1:]
    if (content and not lines) or not all(_fits(tsv, line) for line in samples):
        return Listing()
    return listing


def _fits(tsv: BinaryIO, line: Line) -> bool:
    name = line.name.encode() + b"\t"
    begin = os.pread(tsv.fileno(), len(name), line.offset)
    end = os.pread(tsv.fileno(), 1, line.end - 1)
    return begin == name and end == b"\n"


def _name_of(line: bytes) -> str:
    """The name in a line's first column. Raises StoreError where there is none."""
    name, tab, _ = line.partition(b"\t")
    if not name or not tab:
        raise StoreError("no image's line")
    try:
        return name.decode()
    except UnicodeDecodeError as error:
        raise StoreError("a name that is not UTF-8") from error


def _name_at(tsv: BinaryIO, offset: int) -> str | None:
    """The name of the line that begins at ``offset``; None where none does."""
    before = min(offset, 1)
    found = os.pread(tsv.fileno(), before + _LONGEST_NAME, offset - before)
    if found[:before] not in (b"", b"\n"):
        return None
    try:
        return _name_of(found[before:])
    except StoreError:
        return None
