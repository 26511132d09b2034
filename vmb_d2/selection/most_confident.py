"""The most confident regions by suppression in every class, for all images of a batch together.

The number of times that the host waits for a GPU doesn't depend on the number of images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..config.read_out import ReadOut
from ..structures.box_geometry import CONVENTIONS
from ..utils.devices import on_device
from .suppression import survivors, survivors_of_own_boxes

# Gives the boxes (..., 4) of regions in classes of images: int64 indices of images, of an image's
# regions, and of columns of the scores, which broadcast together to (...).
BoxesOf = Callable[[Tensor, Tensor, Tensor], Tensor]


class Selection(NamedTuple):
    """Regions kept of an image.

    Attributes:
        indices: int64 (K,), of the regions kept, in the read-out's order.
        confidences: float32 (K,), of the same regions.
        classes: int64 (K,), columns of the scores: those of the confidences; any where that is 0.
        num_boxes: number of regions kept whose confidence is above 0.
    """

    indices: Tensor
    confidences: Tensor
    classes: Tensor
    num_boxes: int


def select_by_class(
    scores: Tensor, counts: Sequence[int], boxes_of: BoxesOf, read_out: ReadOut
) -> list[Selection]:
    """The most confident regions of each image of a batch.

    In every class, non-maximum suppression over all regions by that class's score. A region's
    confidence is its highest score among the classes in which it survives (and, where the threshold
    excludes, in which that score is above it); 0 if there is none. Equal scores and equal
    confidences, 0 among them, stay in the order of the regions given; the originals leave that
    order open.

    Taken are as many regions as have a confidence above the threshold, within bounds, as bottom-up
    attention has it: where too few exceed it, the most confident of the others are added.

    Args:
        scores: float32 (N, R, C), probabilities of the classes that take part; -inf for regions
            that an image doesn't have.
        counts: how many of the R regions each image has.
        boxes_of: gives the boxes; of any class, where the read-out doesn't regress them.
        read_out: one that suppresses ``"by_class"``.
    """
    in_order = read_out.order == "proposal"
    wanted = read_out.most + in_order  # one more tells whether the threshold decides
    least_score = read_out.threshold if read_out.threshold_excludes else 0.0
    best = scores.amax(dim=2)
    eligible = best > least_score
    best = best.where(eligible, -torch.inf)
    confidences = torch.zeros_like(best)
    classes = confidences.long()
    number, left = 2 * wanted, list(range(len(scores)))
    while left:
        images = on_device(left, best.device)
        taken = min(number, best.shape[1])
        confidences[images], classes[images] = _confidences(
            scores, best, images, taken, least_score, boxes_of, read_out
        )
        compared = torch.ge if read_out.equal_counts else torch.gt
        above = compared(confidences, read_out.threshold)
        numbers = torch.stack([eligible, confidences > 0, above], dim=1).sum(dim=2).tolist()
        left = [i for i in left if number < numbers[i][0] and numbers[i][1] < wanted]
        number *= 2
    order = confidences.argsort(dim=1, descending=True, stable=True)[:, : read_out.most]
    fields = order, confidences.gather(1, order), classes.gather(1, order)
    result = []
    for length, (_, confident, exceeding), *own in zip(counts, numbers, *fields, strict=True):
        exceeding = min(exceeding, length)
        taken = min(max(exceeding, read_out.least), read_out.most, length)
        rows: Tensor | slice = slice(taken)
        if in_order and taken == exceeding:
            rows = own[0][:taken].argsort()
        result.append(Selection(own[0][rows], own[1][rows], own[2][rows], min(confident, taken)))
    return result


def _confidences(
    scores: Tensor,
    best: Tensor,
    images: Tensor,
    number: int,
    threshold: float,
    boxes_of: BoxesOf,
    read_out: ReadOut,
) -> tuple[Tensor, Tensor]:
    """Confidences computed from the highest scores only.

    Let the pairs of a region and a class be ordered as suppression ranks them: by falling score,
    equal scores in the order of the regions. Which of the first pairs survive doesn't depend on
    later pairs. Taken are the pairs down to the best one of the region that ranks ``number`` by its
    best score: all belong to the first ``number`` regions of that rank. So a confidence above 0 is
    exact, and a region that gets none from these pairs ranks behind all that do.

    Args:
        scores: (N, R, C) of all images.
        best: (N, R), the highest score of each region that has one above the threshold, else -inf.
        images: int64 (M,), which of the N to work on.
        number: number of regions to take. All scores of an image are taken where it has no more
            with a score above the threshold.
        threshold: exceeded by scores that count.
        boxes_of, read_out: see :func:`select_by_class`.

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
    convention, overlap = CONVENTIONS[read_out.convention], read_out.overlaps[0]
    if read_out.regressed:

        def boxes_of_part(rows: Tensor, classes: Tensor) -> Tensor:
            all_rows = own.gather(1, rows.flatten(1)).view_as(rows)
            return boxes_of(images[:, None, None], all_rows, classes)

        survives = survivors_of_own_boxes(part, candidates, boxes_of_part, convention, overlap)
    else:
        boxes = boxes_of(images[:, None], own, torch.zeros_like(own))
        survives = survivors(part, candidates, convention.overlapping(boxes, overlap))
    values, classes = part.where(survives, 0.0).max(dim=2)
    return (
        best.new_zeros(count, beyond + 1).scatter(1, regions, values)[:, :beyond],
        regions.new_zeros(count, beyond + 1).scatter(1, regions, classes)[:, :beyond],
    )
