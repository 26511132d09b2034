"""Texts for people."""

from __future__ import annotations

from collections.abc import Sequence

MOST_LISTED = 10


def listed(items: Sequence[str]) -> str:
    """The first few of ``items`` in a sentence, and how many more there are."""
    more = f", and {len(items) - MOST_LISTED} more" if len(items) > MOST_LISTED else ""
    return "; ".join(items[:MOST_LISTED]) + more
