"""Where each image's line is in a TSV: kept in an index beside it, or found by reading it once.

The index of ``x.tsv`` is ``x.tsv.index``, with a line for each: offset, length, name.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ..errors import StoreError

_SAMPLES = 16  # lines of an index that are compared with the TSV


class Line(NamedTuple):
    """An image's line: where it begins, its length with the line's end, and the image's name."""

    offset: int
    length: int
    name: str

    @property
    def end(self) -> int:
        return self.offset + self.length

    def in_index(self) -> bytes:
        return f"{self.offset}\t{self.length}\t{self.name}\n".encode()


@dataclass
class Listing:
    """The lines of a TSV.

    Attributes:
        lines: all whole ones, in the TSV's order.
        has_index: whether the TSV has an index, and one that fits it.
        complete: whether the index lists these lines and has nothing else in it.
        is_cut: whether the TSV, without an index that fits it, ends in the middle of a line.
    """

    lines: list[Line] = field(default_factory=list)
    has_index: bool = False
    complete: bool = False
    is_cut: bool = False

    @property
    def end(self) -> int:
        return self.lines[-1].end if self.lines else 0


def index_path(path: Path) -> Path:
    """The index of a TSV."""
    return path.with_name(f"{path.name}.index")


def name_of(line: bytes) -> str:
    """The name in a line's first column. Raises StoreError where there is none."""
    name, tab, _ = line.partition(b"\t")
    if not name or not tab:
        raise StoreError("no image's line")
    try:
        return name.decode()
    except UnicodeDecodeError as error:
        raise StoreError("a name that is not UTF-8") from error


def list_lines(path: Path, check: Callable[[bytes], object], check_all: bool) -> Listing:
    """List a TSV's lines. Nothing is written, and of the lines only their places are kept.

    With an index that fits, only what follows the indexed lines is read: where that isn't whole, a
    death came while it was written, and the listing ends. Without one, the whole TSV is read.

    Args:
        check: raises StoreError for a line that isn't whole.
        check_all: whether to check the lines of a TSV without index too.

    Raises:
        StoreError: a line of a TSV without index is none, or fails the check.
        OSError: the files can't be read.
    """
    with open(path, "rb") as tsv:
        listing = _indexed(tsv, index_path(path))
        for offset, content in _whole_lines(tsv, listing.end):
            try:
                line = Line(offset, len(content), name_of(content))
                if listing.has_index or check_all:
                    check(content)
            except StoreError as error:
                if listing.has_index:
                    break
                raise StoreError(f"{path}: at byte {offset}: {error}") from error
            listing.lines.append(line)
            listing.complete = False
        if not listing.has_index:
            listing.is_cut = _ends_in_a_line(tsv)
        return listing


def _whole_lines(tsv: BinaryIO, begin: int) -> Iterator[tuple[int, bytes]]:
    tsv.seek(begin)
    for content in tsv:
        if content.endswith(b"\n") and content.strip(b"\r\n"):
            yield begin, content
        begin += len(content)


def _ends_in_a_line(tsv: BinaryIO) -> bool:
    size = os.fstat(tsv.fileno()).st_size
    return size > 0 and os.pread(tsv.fileno(), 1, size - 1) != b"\n"


def _indexed(tsv: BinaryIO, index: Path) -> Listing:
    """What the index lists; nothing where it doesn't fit. It can end with half a line."""
    try:
        content = index.read_bytes()
    except FileNotFoundError:
        return Listing()
    listing = Listing(has_index=True)
    size = 0
    for entry in content.splitlines(keepends=True):
        line = _parse(entry)
        if line is None or line.offset < listing.end:
            break
        listing.lines.append(line)
        size += len(entry)
    listing.complete = size == len(content)
    lines = listing.lines
    samples = lines[:: len(lines) // _SAMPLES + 1] + lines[-1:]
    if not all(_fits(tsv, line) for line in samples):
        return Listing()
    return listing


def _parse(entry: bytes) -> Line | None:
    offset, _, rest = entry.partition(b"\t")
    length, _, name = rest.partition(b"\t")
    try:
        line = Line(int(offset), int(length), name.decode().removesuffix("\n"))
    except ValueError:
        return None
    return line if line.in_index() == entry and line.length > 0 else None


def _fits(tsv: BinaryIO, line: Line) -> bool:
    name = line.name.encode() + b"\t"
    begin = os.pread(tsv.fileno(), len(name), line.offset)
    end = os.pread(tsv.fileno(), 1, line.end - 1)
    return begin == name and end == b"\n"
