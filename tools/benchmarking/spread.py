"""What repeated measurements of one thing come to."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """Of measurements: their median, the least, the most, and how many there are."""

    median: float
    least: float
    most: float
    repeats: int

    @classmethod
    def of(cls, values: Sequence[float], divisor: float = 1) -> Spread:
        """Of ``values``, at least one, each divided by ``divisor``."""
        scaled = [value / divisor for value in values]
        return cls(statistics.median(scaled), min(scaled), max(scaled), len(scaled))
