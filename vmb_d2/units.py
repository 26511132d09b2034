"""Numbers with units, for people."""

from __future__ import annotations


def bytes_in_words(count: float) -> str:
    """A number of bytes, as ``3.2 GB``."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.4g} TB"
