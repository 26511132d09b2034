"""MMF's choice of the most confident regions, for all images of a batch together.

The number of times that the host waits for a GPU, about ten, doesn't depend on the number of
images, as long as they fit into one part (``NUMBERS``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ..structures import box_geometry
from . import suppression

NMS_THRESHOLD = 0.5

# Largest number of scores, or of pairs of regions, that are processed together; each takes about
# 50 bytes. A larger batch is processed in parts of at least one image.
NUMBERS = 3 * 2**20


class Selection(NamedTuple):
    """Regions kept of an image.

    Attributes:
        indices: int64 (K,), of the regions kept, the most confident first.
        confidences: float32 (K,), of the same regions.
        num_boxes: number of regions kept whose confidence is above 0.
    """

    indices: Tensor
    confidences: Tensor
    num_boxes: int


@torch.no_grad()
def select_regions(
    boxes: Sequence[Tensor], scores: Sequence[Tensor], num_features: int, threshold: float = 0.0
) -> list[Selection]:
    """The ``num_features`` most confident regions of each image of a batch.

    In every class, non-maximum suppression at 0.5 over all regions by that class's score. A
    region's confidence is its highest score among the classes in which it survives and in which
    that score is above ``threshold``; 0 if there is none. Equal scores and equal confidences, 0
    among them, stay in the order of the regions given; the original leaves that order open.

    Args:
        boxes: for each image float32 (R_i, 4), inclusive, in original pixels.
        scores: for each image float32 (R_i, C), probabilities of the classes that take part.
        num_features: number of regions to keep, if there are as many.
        threshold: exceeded by scores that count.
    """
    if not scores:
        return []
    best = _padded([s.amax(dim=1) for s in scores], -torch.inf)
    counts = best > threshold
    best = best.where(counts, -torch.inf)
    eligible = counts.sum(dim=1).tolist()
    by_best = best.argsort(dim=1, descending=True, stable=True)
    images = [_Image(*each) for each in zip(boxes, scores, eligible, best, by_best, strict=True)]
    found = list(torch.zeros_like(best))
    confident = [0] * len(images)
    number = 2 * num_features
    left = [i for i, count in enumerate(eligible) if count]
    while left:
        for part in _parts(left, min(number, max(eligible)), scores[0].shape[1]):
            confidences = _confidences([images[i] for i in part], threshold, number)
            for i, row in zip(part, confidences, strict=True):
                found[i] = row
        confident = (torch.stack(found) > 0).sum(dim=1).tolist()
        left = [i for i in left if number < eligible[i] and confident[i] < num_features]
        number *= 2
    confidences = torch.stack(found)
    order = confidences.argsort(dim=1, descending=True, stable=True)[:, :num_features]
    ranked = confidences.gather(1, order)
    result = []
    for s, indices, values, count in zip(scores, order, ranked, confident, strict=True):
        kept = slice(min(len(s), num_features))
        result.append(Selection(indices[kept], values[kept], min(count, num_features)))
    return result


def select_adaptively(
    boxes: Sequence[Tensor],
    scores: Sequence[Tensor],
    min_features: int,
    max_features: int,
    threshold: float,
) -> list[Selection]:
    """As many regions of each image as have a confidence above ``threshold``, within bounds.

    The rule of bottom-up attention, whose bounds are 10 and 100 and whose threshold is 0.2: where
    too few regions exceed the threshold, the most confident of the others are added. So the
    confidences, unlike those of :func:`select_regions`, don't depend on the threshold. The other
    arguments are those of :func:`select_regions`.
    """
    most = select_regions(boxes, scores, max_features)
    if not most:
        return []
    above = (_padded([m.confidences for m in most], -torch.inf) > threshold).sum(dim=1).tolist()
    counts = [max(count, min_features) for count in above]
    return [
        Selection(m.indices[:count], m.confidences[:count], min(m.num_boxes, count))
        for m, count in zip(most, counts, strict=True)
    ]


class _Image(NamedTuple):
    """The regions of an image of a batch. R is the largest number of regions in the batch.

    Attributes:
        boxes, scores: see :func:`select_regions`.
        eligible: number of regions that have a score above the threshold.
        best: (R,), the highest score of each eligible region, -inf for others.
        by_best: int64 (R,), the regions by falling ``best``.
    """

    boxes: Tensor
    scores: Tensor
    eligible: int
    best: Tensor
    by_best: Tensor


def _confidences(images: Sequence[_Image], threshold: float, number: int) -> Tensor:
    """Confidences computed from the highest scores only.

    Let the pairs of a region and a class be ordered as suppression ranks them: by falling score,
    equal scores in the order of the regions. Which of the first pairs survive doesn't depend on
    later pairs. Taken are the pairs down to the best one of the region ``by_best[number - 1]``:
    all belong to the first ``number`` regions of ``by_best``. So a confidence above 0 is exact, and
    a region that gets none from these pairs ranks behind all that do.

    Args:
        images: N of them, each with an eligible region.
        threshold: see :func:`select_regions`.
        number: number of regions to take. All scores of an image are taken where it has no more
            eligible ones.

    Returns:
        float32 (N, R); 0 where there is no confidence, or where it is not known yet.
    """
    best = torch.stack([image.best for image in images])
    beyond = best.shape[1]  # sorts after all regions
    taken = [image.by_best[: min(number, image.eligible)] for image in images]
    regions = _padded(taken, beyond).sort(dim=1).values  # equal scores rank in the order given
    part = best.new_empty(*regions.shape, images[0].scores.shape[1])
    boxes = []
    for image, first, rows, target in zip(images, taken, regions, part, strict=True):
        own = rows[: len(first)]
        boxes.append(image.boxes.index_select(0, own))
        torch.index_select(image.scores, 0, own, out=target[: len(own)])
        target[len(own) :] = -torch.inf
    limits: Tensor | float = threshold
    if number < max(image.eligible for image in images):
        last = torch.stack([image.by_best[number - 1 : number] for image in images])
        bound = best.gather(1, last)  # -inf where no score is left out
        # Scores equal to the bound are ranked by their region: those up to the last one are taken.
        below = torch.nextafter(bound, torch.full_like(bound, -torch.inf))
        limits = below.where(regions <= last, bound).clamp(min=threshold)[..., None]
    candidates = part > limits
    overlapping = box_geometry.overlapping(_padded(boxes, torch.nan), NMS_THRESHOLD)
    survives = suppression.survivors(part, candidates, overlapping)
    values = part.where(survives, 0.0).amax(dim=2)
    return best.new_zeros(len(images), beyond + 1).scatter(1, regions, values)[:, :beyond]


def _parts(images: list[int], regions: int, classes: int) -> Iterator[list[int]]:
    """The images in parts as large as ``NUMBERS`` allows, given the size of each image."""
    at_once = max(NUMBERS // (regions * max(regions, classes)), 1)
    for begin in range(0, len(images), at_once):
        yield images[begin : begin + at_once]


def _padded(rows: list[Tensor], value: float) -> Tensor:
    """Tensors (R_i, ...) as one (N, R, ...), padded with ``value``."""
    if len(rows) == 1:
        return rows[0][None]
    return pad_sequence(rows, batch_first=True, padding_value=value)
