"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A path beside ``path`` to write to, which is moved to ``path`` when the block ends well.

    The content is on the disk before it moves. The name of the temporary file is always the same,
    so one that a death left behind is overwritten by the next try. After an error nothing is left.

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
