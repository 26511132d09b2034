"""How far two extractions of one image are apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..structures.regions import RegionFeatures

BOX_TOLERANCE = 0.01


@dataclass(frozen=True)
class Distance:
    """Regions of a reference held against another extraction of the same image.

    Attributes:
        regions: in the reference.
        matched: of these, how many have a box in the other whose every coordinate is within the
            tolerance. The rest of the attributes is about them.
        box: largest distance of a coordinate, in original pixels.
        features: largest relative L2 error of a feature vector.
        same_class: how many have the same class.
    """

    regions: int
    matched: int
    box: float
    features: float
    same_class: int

    @property
    def matched_share(self) -> float:
        return self.matched / self.regions if self.regions else 1.0


def nearest_boxes(reference: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each box of ``reference`` (R, 4), the nearest of ``other`` (S, 4), S > 0.

    Returns:
        Its index, int64 (R,), and its distance, the largest of the four coordinates', (R,).
    """
    distances = np.abs(reference[:, None] - other[None]).max(axis=2)
    nearest = distances.argmin(axis=1)
    return nearest, distances[np.arange(len(reference)), nearest]


def relative_errors(reference: np.ndarray, other: np.ndarray) -> np.ndarray:
    """L2 norm of each row's difference over that of the row in ``reference``, (R,)."""
    norms = np.linalg.norm(reference, axis=1)
    return np.linalg.norm(other - reference, axis=1) / np.maximum(norms, np.finfo(np.float32).tiny)


def distance(
    reference: RegionFeatures, other: RegionFeatures, tolerance: float = BOX_TOLERANCE
) -> Distance:
    """Match the boxes of two extractions and compare what belongs to them.

    By box and not by row: regions of nearly equal confidence swap places under rounding. Both have
    boxes and classes.
    """
    assert reference.bbox is not None and other.bbox is not None
    assert reference.objects is not None and other.objects is not None
    if not len(reference.bbox) or not len(other.bbox):
        return Distance(len(reference.bbox), 0, 0.0, 0.0, 0)
    nearest, distances = nearest_boxes(reference.bbox, other.bbox)
    matched = distances <= tolerance
    nearest = nearest[matched]
    errors = relative_errors(reference.features[matched], other.features[nearest])
    same = reference.objects[matched] == other.objects[nearest]
    return Distance(
        regions=len(reference.bbox),
        matched=int(matched.sum()),
        box=float(distances[matched].max(initial=0)),
        features=float(errors.max(initial=0)),
        same_class=int(same.sum()),
    )
