"""Quantiles of any number of values in constant memory."""

from __future__ import annotations

import math

import numpy as np

_SMALLEST, _LARGEST = -12, 6  # powers of ten
_BINS_A_DECADE = 200
_EDGES = np.logspace(_SMALLEST, _LARGEST, (_LARGEST - _SMALLEST) * _BINS_A_DECADE + 1)


class LogHistogram:
    """Counts non-negative finite values in bins that are a 1/200 of a decade wide.

    A quantile is within 0.6 % of the true one (less than 1e-12 counts as 0, more than 1e6 as the
    largest value); the smallest and the largest value are exact.
    """

    def __init__(self) -> None:
        self._counts = np.zeros(len(_EDGES) + 1, dtype=np.int64)
        self._smallest, self._largest = math.inf, -math.inf

    def add(self, values: np.ndarray) -> None:
        """Count float64 values [N]. None of them is NaN, infinite or < 0."""
        bins = np.searchsorted(_EDGES, values, side="right")
        self._counts += np.bincount(bins, minlength=len(self._counts))
        self._smallest = min(self._smallest, values.min(initial=math.inf))
        self._largest = max(self._largest, values.max(initial=-math.inf))

    def __len__(self) -> int:
        return int(self._counts.sum())

    def quantile(self, share: float) -> float:
        """The smallest value that at least ``share`` of all don't exceed; NaN of no values."""
        if not len(self):
            return math.nan
        rank = max(1, math.ceil(share * len(self)))
        index = int(np.searchsorted(self._counts.cumsum(), rank))
        if index == 0:
            value = 0.0
        elif index == len(_EDGES):
            value = math.inf
        else:
            value = math.sqrt(_EDGES[index - 1] * _EDGES[index])
        return float(min(max(value, self._smallest), self._largest))

    def summary(self) -> dict[str, float | None]:
        """Median, 99th percentile and largest value; None of no values."""
        if not len(self):
            return {"median": None, "p99": None, "max": None}
        largest = float(self._largest)
        return {"median": self.quantile(0.5), "p99": self.quantile(0.99), "max": largest}
