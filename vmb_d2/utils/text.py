"""Texts for people: numbers with units, lists in a sentence."""

from __future__ import annotations

from collections.abc import Sequence

MOST_LISTED = 10


def bytes_in_words(count: float) -> str:
    """A number of bytes, as ``3.2 GB``."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.4g} TB"


def listed(items: Sequence[str]) -> str:
    """The first few of ``items`` in a sentence, and how many more there are."""
    more = f", and {len(items) - MOST_LISTED} more" if len(items) > MOST_LISTED else ""
    return "; ".join(items[:MOST_LISTED]) + more
