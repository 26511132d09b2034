"""MMF's choice of the most confident regions."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .modeling import box_geometry

NMS_THRESHOLD = 0.5


class Selection(NamedTuple):
    """Regions kept.

    Attributes:
        indices: int64 (K,), of the regions kept, the most confident first.
        confidences: float32 (K,), theirs.
    """

    indices: Tensor
    confidences: Tensor

    @property
    def num_boxes(self) -> int:
        """How many of the regions kept have a confidence above 0."""
        return int((self.confidences > 0).sum())


def confidences(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Confidence of each region.

    In every class, non-maximum suppression at 0.5 over all regions by that class's score. A
    region's confidence is its highest score among the classes in which it survives and in which
    that score is above ``threshold``; 0 if there is none.

    All classes go through the suppression together, rank by rank: the boxes, and so the overlaps,
    are the same in all.

    Args:
        boxes: (R, 4), inclusive, in original pixels.
        scores: (R, C), probabilities of the classes that take part.
        threshold: a score has to exceed it to count.

    Returns:
        float32 (R,).
    """
    overlapping = box_geometry.overlapping(boxes, NMS_THRESHOLD)
    by_rank = scores.argsort(dim=0, descending=True, stable=True)
    suppressed = torch.zeros(scores.shape[::-1], dtype=torch.bool, device=scores.device)
    for ranked in by_rank:  # (C,): in each class, the region with the next lower score
        survives = ~suppressed.gather(1, ranked[:, None])
        suppressed |= overlapping[ranked] & survives
    counts = ~suppressed.T & (scores > threshold)
    return torch.where(counts, scores, 0.0).amax(dim=1)


def select_regions(
    boxes: Tensor, scores: Tensor, num_features: int, threshold: float = 0.0
) -> Selection:
    """The ``num_features`` most confident regions.

    Equal confidences, 0 among them, stay in the order of the regions given; the original leaves
    that order open. Arguments as for :func:`confidences`.
    """
    confidence = confidences(boxes, scores, threshold)
    order = confidence.argsort(descending=True, stable=True)[:num_features]
    return Selection(order, confidence[order])
