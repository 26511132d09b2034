"""MMF's choice of the most confident regions, of one image or of each image of a batch.

How often a GPU is waited for doesn't depend on the number of images, while they fit into one part
(``NUMBERS``): by what the hardest of them needs, some ten times.
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

# Scores, and pairs of regions, that are looked at together: a bound on memory, some 50 bytes for
# each. A batch with more is worked on in parts, of at least an image.
NUMBERS = 3 * 2**20


class Selection(NamedTuple):
    """Regions kept of an image.

    Attributes:
        indices: int64 (K,), of the regions kept, the most confident first.
        confidences: float32 (K,), theirs.
        num_boxes: how many of the regions kept have a confidence above 0.
    """

    indices: Tensor
    confidences: Tensor
    num_boxes: int


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
    return select_regions_of_each([boxes], [scores], num_features, threshold)[0]


@torch.no_grad()
def select_regions_of_each(
    boxes: Sequence[Tensor], scores: Sequence[Tensor], num_features: int, threshold: float = 0.0
) -> list[Selection]:
    """What :func:`select_regions` gives for each image of a batch.

    Args:
        boxes: for each image, as there.
        scores: for each image, as there; of the same classes.
        num_features, threshold: as there.
    """
    if not scores:
        return []
    best = _padded([s.amax(dim=1) for s in scores], -torch.inf)
    counts = best > threshold
    best = best.where(counts, -torch.inf)
    able = counts.sum(dim=1).tolist()
    by_best = best.argsort(dim=1, descending=True, stable=True)
    images = [_Image(*each) for each in zip(boxes, scores, able, best, by_best, strict=True)]
    found = list(torch.zeros_like(best))
    confident = [0] * len(images)
    number = 2 * num_features
    left = [i for i, count in enumerate(able) if count]
    while left:
        for part in _parts(left, min(number, max(able)), scores[0].shape[1]):
            confidences = _confidences([images[i] for i in part], threshold, number)
            for i, row in zip(part, confidences, strict=True):
                found[i] = row
        confident = (torch.stack(found) > 0).sum(dim=1).tolist()
        left = [i for i in left if number < able[i] and confident[i] < num_features]
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
    boxes: Tensor, scores: Tensor, min_features: int, max_features: int, threshold: float
) -> Selection:
    """As many regions as have a confidence above ``threshold``, within bounds.

    The rule of bottom-up attention, whose bounds are 10 and 100 and whose threshold is 0.2: where
    too few regions exceed the threshold, the most confident of the others fill up. So the
    confidences, unlike those of :func:`select_regions`, don't depend on the threshold. Arguments
    as for :func:`select_regions`.
    """
    return select_adaptively_of_each([boxes], [scores], min_features, max_features, threshold)[0]


def select_adaptively_of_each(
    boxes: Sequence[Tensor],
    scores: Sequence[Tensor],
    min_features: int,
    max_features: int,
    threshold: float,
) -> list[Selection]:
    """What :func:`select_adaptively` gives for each image of a batch.

    Arguments as for :func:`select_regions_of_each`.
    """
    most = select_regions_of_each(boxes, scores, max_features)
    if not most:
        return []
    above = (_padded([m.confidences for m in most], -torch.inf) > threshold).sum(dim=1).tolist()
    counts = [max(count, min_features) for count in above]
    return [
        Selection(m.indices[:count], m.confidences[:count], min(m.num_boxes, count))
        for m, count in zip(most, counts, strict=True)
    ]


class _Image(NamedTuple):
    """What there is to choose from in an image of a batch.

    Attributes:
        boxes, scores: see :func:`select_regions`.
        able: how many regions have a score above the threshold.
        best: (R,), the highest score of each of these; -inf of others. R is the batch's greatest.
        by_best: int64 (R,), the regions by falling ``best``.
    """

    boxes: Tensor
    scores: Tensor
    able: int
    best: Tensor
    by_best: Tensor


def _confidences(images: Sequence[_Image], threshold: float, number: int) -> Tensor:
    """Confidences from the highest scores alone: exact where above 0, and above all it leaves out.

    Order the pairs of a region and a class of an image as suppression ranks them: by falling score,
    equal scores in the order of the regions. What survives among the first pairs doesn't depend on
    any later one. Taken here are those down to the best one of the region ``by_best[number - 1]``.
    They are of the regions up to this one in ``by_best``, and a region that gets no confidence from
    them comes after all that do.

    Args:
        images: N of them, in each of which a region is able.
        threshold: see :func:`select_regions`.
        number: of regions to take; if no more are able, no score of the image is left out.

    Returns:
        (N, R), like ``best``; 0 where there is no confidence, or none yet.
    """
    best = torch.stack([image.best for image in images])
    beyond = best.shape[1]  # sorts after all regions
    taken = [image.by_best[: min(number, image.able)] for image in images]
    regions = _padded(taken, beyond).sort(dim=1).values  # equal scores rank in the order given
    part = best.new_empty(*regions.shape, images[0].scores.shape[1])
    boxes = []
    for image, first, rows, target in zip(images, taken, regions, part, strict=True):
        own = rows[: len(first)]
        boxes.append(image.boxes.index_select(0, own))
        torch.index_select(image.scores, 0, own, out=target[: len(own)])
        target[len(own) :] = -torch.inf
    limits = threshold
    if number < max(image.able for image in images):
        last = torch.stack([image.by_best[number - 1 : number] for image in images])
        bound = best.gather(1, last)  # -inf where no score is left out
        # What is equal to the bound ranks by its region: it exceeds the number below, or doesn't.
        below = torch.nextafter(bound, torch.full_like(bound, -torch.inf))
        limits = below.where(regions <= last, bound).clamp(min=threshold)[..., None]
    candidates = part > limits
    overlapping = box_geometry.overlapping(_padded(boxes, torch.nan), NMS_THRESHOLD)
    survives = suppression.survivors(part, candidates, overlapping)
    values = part.where(survives, 0.0).amax(dim=2)
    return best.new_zeros(len(images), beyond + 1).scatter(1, regions, values)[:, :beyond]


def _parts(images: list[int], regions: int, classes: int) -> Iterator[list[int]]:
    """As many images at a time as ``NUMBERS`` allows where each has so many regions."""
    at_once = max(NUMBERS // (regions * max(regions, classes)), 1)
    for begin in range(0, len(images), at_once):
        yield images[begin : begin + at_once]


def _padded(rows: list[Tensor], value: float) -> Tensor:
    """Tensors (R_i, ...) as one (N, R, ...), filled up with ``value``."""
    if len(rows) == 1:
        return rows[0][None]
    return pad_sequence(rows, batch_first=True, padding_value=value)
