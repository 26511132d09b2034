"""Overwriting what this package drew before, and nothing else."""

from __future__ import annotations

from pathlib import Path

from ..errors import OutputError

MARK = "VMB-D2 visualize"  # near the beginning of each file
_BEGINNING = 1000  # bytes


def refuse_other(path: str | Path) -> None:
    """Raise OutputError where ``path`` is a file without the mark: a user's photograph, say."""
    try:
        with open(path, "rb") as file:
            own = MARK.encode() in file.read(_BEGINNING)
    except FileNotFoundError:
        return
    except OSError as error:
        raise OutputError(f"{path}: can't be written: {error.strerror}") from error
    if not own:
        raise OutputError(f"{path} would be overwritten: choose another --output")
