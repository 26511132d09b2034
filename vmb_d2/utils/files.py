"""Writing files so that a death at any moment leaves nothing half."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``, which is renamed to ``path`` at the end of the block.

    The content is synced before. The temporary file always has the same name, so that the next
    attempt overwrites one that a death has left. After an error, nothing is left.

    Raises OSError where the file can't be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def write_whole(path: str | Path, content: bytes) -> None:
    """Write a file whole or not at all. Raises OSError."""
    with whole_file(path) as temporary:
        temporary.write_bytes(content)


def write_at(descriptor: int, content: bytes | memoryview, offset: int) -> None:
    """Write all of ``content`` at ``offset`` of an open file. Raises OSError."""
    rest = memoryview(content)
    while rest:
        written = os.pwrite(descriptor, rest, offset)
        rest, offset = rest[written:], offset + written


def sync_folder(folder: str | Path) -> None:
    """Make the names of the files in a folder survive the machine's death. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_in_place(opened: os.stat_result, path: str | Path) -> None:
    """Raise OSError unless the file at ``path`` is still the one that was opened."""
    found = os.stat(path)
    if (opened.st_dev, opened.st_ino) != (found.st_dev, found.st_ino):
        raise OSError(errno.ESTALE, "was replaced while it was written to", str(path))


def is_web_page(beginning: bytes) -> bool:
    """Whether the first bytes of a file are those of HTML or XML."""
    pattern = rb"(\xef\xbb\xbf)?\s*<(!doctype|!--|html|head|body|\?xml)"
    return re.match(pattern, beginning, re.IGNORECASE) is not None
