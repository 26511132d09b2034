"""Whether matched regions have the same classes, with the same probabilities."""

from __future__ import annotations

import numpy as np

from ..structures.regions import RegionFeatures
from .quantiles import LogHistogram


class ClassTally:
    """Counts over matched regions.

    Attributes:
        compared: pairs in which both have a class.
        same: of them with one class.
        one_more: of them in which the class of A is B's plus one, and in which B's is A's.
        one_more_or_0: the same, or the class is 0 (the background, where it is column 0).
        probabilities: largest difference of a class's probability, of each pair with as many
            columns in A and B, or with one column, 0, more in one.
        columns_differ: images with other numbers of columns, but for
        background_column: images with one column more in A, and in B.
    """

    def __init__(self):
        self.compared = 0
        self.same = 0
        self.one_more = [0, 0]
        self.one_more_or_0 = [0, 0]
        self.probabilities = LogHistogram()
        self.columns_differ = 0
        self.background_column = [0, 0]

    def add(
        self, a: RegionFeatures, b: RegionFeatures, rows: tuple[np.ndarray, np.ndarray]
    ) -> None:
        """Compare the matched ``rows`` of A and B of one image."""
        if a.objects is not None and b.objects is not None:
            self._add_classes(a.objects[rows[0]], b.objects[rows[1]])
        if a.cls_prob is not None and b.cls_prob is not None:
            self._add_probabilities(a.cls_prob[rows[0]], b.cls_prob[rows[1]])

    def _add_classes(self, a: np.ndarray, b: np.ndarray) -> None:
        self.compared += len(a)
        self.same += int((a == b).sum())
        for store, (more, less) in enumerate(((a, b), (b, a))):
            self.one_more[store] += int((more == less + 1).sum())
            self.one_more_or_0[store] += int(((more == less + 1) | (more == 0)).sum())

    def _add_probabilities(self, a: np.ndarray, b: np.ndarray) -> None:
        more = a.shape[1] - b.shape[1]
        if more == 1:
            self.background_column[0] += 1
            a = a[:, 1:]
        elif more == -1:
            self.background_column[1] += 1
            b = b[:, 1:]
        elif more:
            self.columns_differ += 1
            return
        difference = np.abs(a.astype(np.float64) - b.astype(np.float64)).max(axis=1, initial=0)
        self.probabilities.add(np.nan_to_num(difference, nan=1.0))
