"""The most confident regions by suppression in every class, for all images of a batch together.

The number of times that the host waits for a GPU doesn't depend on the number of images.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

from ..structures.box_geometry import VMB, BoxConvention
from ..utils.devices import on_device
from . import suppression

NMS_THRESHOLD = 0.5  # of MMF


class Selection(NamedTuple):
    """Regions kept of an image.

    Attributes:
        indices: int64 (K,), of the regions kept, the most confident first.
        confidences: float32 (K,), of the same regions.
        classes: int64 (K,), columns of the scores: those of the confidences; any where that is 0.
        num_boxes: number of regions kept whose confidence is above 0.
    """

    indices: Tensor
    confidences: Tensor
    classes: Tensor
    num_boxes: int


@torch.no_grad()
def select_regions(
    boxes: Sequence[Tensor],
    scores: Sequence[Tensor],
    num_features: int,
    threshold: float = 0.0,
    convention: BoxConvention = VMB,
    overlap: float = NMS_THRESHOLD,
) -> list[Selection]:
    """The ``num_features`` most confident regions of each image of a batch.

    In every class, non-maximum suppression over all regions by that class's score. A region's
    confidence is its highest score among the classes in which it survives and in which that score
    is above ``threshold``; 0 if there is none. Equal scores and equal confidences, 0 among them,
    stay in the order of the regions given; the original leaves that order open.

    Args:
        boxes: for each image float32 (R_i, 4).
        scores: for each image float32 (R_i, C), probabilities of the classes that take part.
        num_features: number of regions to keep, if there are as many.
        threshold: exceeded by scores that count.
        convention: of the boxes' overlaps.
        overlap: above which the region with the lower score is suppressed.
    """
    if not scores:
        return []
    all_boxes, all_scores = padded(boxes, 0), padded(scores, -torch.inf)
    best = all_scores.amax(dim=2)
    counts = best > threshold
    best = best.where(counts, -torch.inf)
    eligible = counts.sum(dim=1).tolist()
    confidences = torch.zeros_like(best)
    classes = confidences.long()
    confident = [0] * len(eligible)
    number = 2 * num_features
    left = [i for i, count in enumerate(eligible) if count]
    while left:
        images = on_device(left, best.device)
        taken = min(number, max(eligible[i] for i in left))
        confidences[images], classes[images] = _confidences(
            all_boxes, all_scores, best, images, taken, threshold, convention, overlap
        )
        confident = (confidences > 0).sum(dim=1).tolist()
        left = [i for i in left if number < eligible[i] and confident[i] < num_features]
        number *= 2
    order = confidences.argsort(dim=1, descending=True, stable=True)[:, :num_features]
    rows = order, confidences.gather(1, order), classes.gather(1, order)
    result = []
    for own, indices, values, of_class, count in zip(scores, *rows, confident, strict=True):
        kept = slice(min(len(own), num_features))
        fields = indices[kept], values[kept], of_class[kept]
        result.append(Selection(*fields, min(count, num_features)))
    return result


def select_adaptively(
    boxes: Sequence[Tensor],
    scores: Sequence[Tensor],
    min_features: int,
    max_features: int,
    threshold: float,
    convention: BoxConvention = VMB,
    overlap: float = NMS_THRESHOLD,
    equal_counts: bool = False,
    in_order: bool = False,
) -> list[Selection]:
    """As many regions of each image as have a confidence above ``threshold``, within bounds.

    The rule of bottom-up attention, whose bounds are 10 and 100 and whose threshold is 0.2: where
    too few regions exceed the threshold, the most confident of the others are added. So the
    confidences, unlike those of :func:`select_regions`, don't depend on the threshold.

    Args:
        equal_counts: whether a confidence that equals the threshold counts.
        in_order: whether the regions are in the order given, where the threshold decides on their
            number. Otherwise the most confident are first, as where the bounds decide.

    The other arguments are those of :func:`select_regions`.
    """
    most = select_regions(
        boxes, scores, max_features + in_order, convention=convention, overlap=overlap
    )
    if not most:
        return []
    confidences = padded([m.confidences for m in most], -torch.inf)
    counts = confidences >= threshold if equal_counts else confidences > threshold
    result = []
    for selection, above in zip(most, counts.sum(dim=1).tolist(), strict=True):
        count = min(max(above, min_features), max_features)
        indices, confidence, classes = (values[:count] for values in selection[:3])
        if in_order and count == above:
            order = indices.argsort()
            indices, confidence, classes = indices[order], confidence[order], classes[order]
        num_boxes = min(selection.num_boxes, count)
        result.append(Selection(indices, confidence, classes, num_boxes))
    return result


def _confidences(
    boxes: Tensor,
    scores: Tensor,
    best: Tensor,
    images: Tensor,
    number: int,
    threshold: float,
    convention: BoxConvention,
    overlap: float,
) -> tuple[Tensor, Tensor]:
    """Confidences computed from the highest scores only.

    Let the pairs of a region and a class be ordered as suppression ranks them: by falling score,
    equal scores in the order of the regions. Which of the first pairs survive doesn't depend on
    later pairs. Taken are the pairs down to the best one of the region that ranks ``number`` by its
    best score: all belong to the first ``number`` regions of that rank. So a confidence above 0 is
    exact, and a region that gets none from these pairs ranks behind all that do.

    Args:
        boxes: (N, R, 4) of all images.
        scores: (N, R, C).
        best: (N, R), the highest score of each region that has one above the threshold, else -inf.
        images: int64 (M,), which of the N to work on.
        number: number of regions to take. All scores of an image are taken where it has no more
            with a score above the threshold.
        threshold, convention, overlap: see :func:`select_regions`.

    Returns:
        Confidences, float32 (M, R); 0 where there is none, or where it is not known yet. Their
        classes, int64 (M, R).
    """
    best = best[images]
    count, beyond = best.shape  # as the index of a region, the latter sorts after all others
    ranked, by_best = best.sort(dim=1, descending=True, stable=True)
    first, further = by_best[:, :number], pad(ranked, (0, 1), value=-torch.inf)[:, number, None]
    regions = first.where(ranked[:, :number] > -torch.inf, beyond).sort(dim=1).values
    own = regions.clamp(max=beyond - 1)  # equal scores rank in the order given
    part = scores[images[:, None], own]
    # Scores equal to the last one are ranked by their region: those up to the last one are taken.
    last = first[:, -1:]
    bound = ranked[:, number - 1 : number].where(further > -torch.inf, -torch.inf)
    below = torch.nextafter(bound, torch.full_like(bound, -torch.inf))
    limits = below.where(regions <= last, bound).clamp(min=threshold)
    candidates = (part > limits[..., None]) & (regions < beyond)[..., None]
    overlapping = convention.overlapping(boxes[images[:, None], own], overlap)
    survives = suppression.survivors(part, candidates, overlapping)
    values, classes = part.where(survives, 0.0).max(dim=2)
    return (
        best.new_zeros(count, beyond + 1).scatter(1, regions, values)[:, :beyond],
        regions.new_zeros(count, beyond + 1).scatter(1, regions, classes)[:, :beyond],
    )


def padded(rows: Sequence[Tensor], value: float) -> Tensor:
    """Tensors (R_i, ...) as one (N, R, ...), padded with ``value``."""
    if len(rows) == 1:
        return rows[0][None]
    return pad_sequence(list(rows), batch_first=True, padding_value=value)
