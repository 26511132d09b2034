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
    return _most_confident(confidences(boxes, scores, threshold), num_features)


def select_adaptively(
    boxes: Tensor, scores: Tensor, min_features: int, max_features: int, threshold: float
) -> Selection:
    """As many regions as have a confidence above ``threshold``, within bounds.

    The rule of bottom-up attention, whose bounds are 10 and 100 and whose threshold is 0.2: where
    too few regions exceed the threshold, the most confident of the others fill up. So the
    confidences, unlike those of :func:`select_regions`, don't depend on the threshold. Arguments
    as for :func:`confidences`.
    """
    confidence = confidences(boxes, scores, 0.0)
    count = int((confidence > threshold).sum())
    return _most_confident(confidence, min(max(count, min_features), max_features))


def _most_confident(confidence: Tensor, count: int) -> Selection:
    order = confidence.argsort(descending=True, stable=True)[:count]
    return Selection(order, confidence[order])
