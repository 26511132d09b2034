"""Texts for people."""

from __future__ import annotations

from collections.abc import Sequence


def listed(items: Sequence[str], most: int | None = 10) -> str:
    """The first ``most`` of ``items`` in a sentence, and how many more there are; None: all."""
    more = len(items) - len(items[:most])
    return "; ".join(items[:most]) + (f", and {more} more" if more else "")
