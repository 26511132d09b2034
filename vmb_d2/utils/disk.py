"""What the writers ask of the disk beyond files that are written whole."""

from __future__ import annotations

import errno
import os
from pathlib import Path


def sync_folder(folder: str | Path) -> None:
    """Make the names in a folder survive the machine's death. Raises OSError."""
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
