"""How far the features of matched regions are apart."""

from __future__ import annotations

import numpy as np

from .fidelity import relative_errors
from .quantiles import LogHistogram

_MOST = 1e9  # an error larger than this, that of a vector against zeros, counts as this


class FeatureTally:
    """Counts over matched regions whose features have one dimension.

    Attributes:
        errors: L2 norm of the difference over that of A's vector.
        rectified_errors: the same of max(x, 0).
        angles: 1 - cosine.
        worst: (largest error, index of the image that was given to :meth:`add` with it).
        non_finite: regions with a NaN or an infinite number in A or B that are not equal; they
            count in nothing else. Where both are equal they count with an error of 0.
        incomparable: images whose features have other dimensions in A than in B.
    """

    def __init__(self):
        self.errors = LogHistogram()
        self.rectified_errors = LogHistogram()
        self.angles = LogHistogram()
        self.worst: tuple[float, int] | None = None
        self.non_finite = 0
        self.incomparable = 0

    def add(self, image: int, a: np.ndarray, b: np.ndarray) -> None:
        """Compare the features (M, D) of one image's matched regions, row by row."""
        if a.shape[1] != b.shape[1]:
            self.incomparable += 1
            return
        a, b = a.astype(np.float64), b.astype(np.float64)
        finite = np.isfinite(a).all(axis=1) & np.isfinite(b).all(axis=1)
        equal = ((a == b) | (np.isnan(a) & np.isnan(b))).all(axis=1)
        self.non_finite += int((~finite & ~equal).sum())
        a, b = a[finite], b[finite]
        errors = np.append(_errors(a, b), np.zeros(int((~finite & equal).sum())))
        self.errors.add(errors)
        self.rectified_errors.add(_errors(a.clip(min=0), b.clip(min=0)))
        self.angles.add(_angles(a, b))
        if len(errors) and (self.worst is None or errors.max() > self.worst[0]):
            self.worst = (float(errors.max()), image)


def _errors(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The relative error of each row, (M,); the largest number counted where it is more."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.nan_to_num(relative_errors(a, b), nan=_MOST, posinf=_MOST).clip(max=_MOST)


def _angles(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """1 - cosine of each row's pair, (M,); 0 of two zero vectors, 1 of one."""
    norms = np.stack([np.linalg.norm(x, axis=1) for x in (a, b)])
    with np.errstate(all="ignore"):
        chord = np.linalg.norm(a / norms[0][:, None] - b / norms[1][:, None], axis=1)
    angles = np.nan_to_num(chord**2 / 2, nan=1.0)  # unlike 1 - a.b, exact for small angles
    return np.where((norms == 0).any(axis=0), (norms > 0).any(axis=0), angles)
