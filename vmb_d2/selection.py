"""MMF's choice of the most confident regions."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from . import suppression
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


def select_regions(
    boxes: Tensor, scores: Tensor, num_features: int, threshold: float = 0.0
) -> Selection:
    """The ``num_features`` most confident regions.

    In every class, non-maximum suppression at 0.5 over all regions by that class's score. A
    region's confidence is its highest score among the classes in which it survives and in which
    that score is above ``threshold``; 0 if there is none. Equal scores and equal confidences, 0
    among them, stay in the order of the regions given; the original leaves that order open.

    Args:
        boxes: (R, 4), inclusive, in original pixels.
        scores: (R, C), probabilities of the classes that take part.
        num_features: how many regions to keep, if there are as many.
        threshold: a score has to exceed it to count.
    """
    best = scores.amax(dim=1)
    able = int((best > threshold).sum())
    by_best = best.argsort(descending=True, stable=True)[:able]
    number = 2 * num_features
    while True:
        confidence = _confidences(boxes, scores, threshold, best, by_best, number)
        if number >= able or int((confidence > 0).sum()) >= num_features:
            break
        number *= 2
    order = confidence.argsort(descending=True, stable=True)[:num_features]
    return Selection(order, confidence[order])


def select_adaptively(
    boxes: Tensor, scores: Tensor, min_features: int, max_features: int, threshold: float
) -> Selection:
    """As many regions as have a confidence above ``threshold``, within bounds.

    The rule of bottom-up attention, whose bounds are 10 and 100 and whose threshold is 0.2: where
    too few regions exceed the threshold, the most confident of the others fill up. So the
    confidences, unlike those of :func:`select_regions`, don't depend on the threshold. Arguments
    as for :func:`select_regions`.
    """
    most = select_regions(boxes, scores, max_features)
    count = max(int((most.confidences > threshold).sum()), min_features)
    return Selection(most.indices[:count], most.confidences[:count])


def _confidences(
    boxes: Tensor, scores: Tensor, threshold: float, best: Tensor, by_best: Tensor, number: int
) -> Tensor:
    """Confidences from the highest scores alone: exact where above 0, and above all it leaves out.

    Order the pairs of a region and a class as suppression ranks them: by falling score, equal
    scores in the order of the regions. What survives among the first pairs doesn't depend on any
    later one. Taken here are those down to the best one of the region ``by_best[number - 1]``. They
    are of the regions up to this one in ``by_best``, and a region that gets no confidence from them
    comes after all that do.

    Args:
        boxes, scores, threshold: see :func:`select_regions`.
        best: (R,), the highest score of each region.
        by_best: int64, the regions where that exceeds ``threshold``, by falling ``best``.
        number: of regions to take; if ``by_best`` has no more, no score is left out.

    Returns:
        (R,), like ``scores``; 0 where there is no confidence, or none yet.
    """
    regions = by_best[:number].sort().values  # in the order given, which decides among equal scores
    part = scores[regions]
    candidates = part > threshold
    if number < len(by_best):
        last = by_best[number - 1 : number]  # not by_best[number - 1], for which a GPU would wait
        bound = best[last]
        candidates &= (part > bound) | ((part == bound) & (regions <= last)[:, None])
    overlapping = box_geometry.overlapping(boxes[regions], NMS_THRESHOLD)
    survives = suppression.survivors(part, candidates, overlapping)
    result = torch.zeros_like(best)
    result[regions] = part.where(survives, 0.0).amax(dim=1)
    return result
