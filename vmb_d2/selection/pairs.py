"""Choice of regions as pairs of a proposal and a class, whose boxes can be regressed.

It is made for one image at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ..config.read_out import ReadOut
from ..structures.box_geometry import CONVENTIONS

_PAIRS_PER_REGION = 4  # looked at first
_HALVINGS = 10  # of the threshold, at most

BoxesOf = Callable[[Tensor, Tensor], Tensor]


class Pairs(NamedTuple):
    """Regions and a class of each.

    Attributes:
        indices: int64 (K,), of the proposals.
        classes: int64 (K,), columns of the scores.
        scores: float32 (K,).
    """

    indices: Tensor
    classes: Tensor
    scores: Tensor

    def at(self, which: Tensor | slice) -> Pairs:
        """Some of them, by index or mask."""
        return Pairs(*(values[which] for values in self))


def chosen_pairs(scores: Tensor, boxes_of: BoxesOf, read_out: ReadOut) -> Pairs:
    """The regions of an image that ``read_out`` chooses, in its order.

    Args:
        scores: float32 (R, C), probabilities of the classes.
        boxes_of: gives the boxes (K, 4) of pairs, from indices and classes (K,).
        read_out: one that suppresses ``"pairs"``, or regressed boxes ``"by_class"``.
    """
    pairs = Pairs(*torch.zeros(3, 0))
    for overlap in read_out.overlaps:
        if read_out.suppression == "pairs":
            pairs = _suppressed_pairs(scores, boxes_of, read_out, overlap)
        else:
            pairs = _best_pairs(scores, boxes_of, read_out, overlap)
        if len(pairs.scores) >= read_out.least:
            break
    if read_out.order == "class":
        best = pairs.scores.argsort(descending=True, stable=True)[: read_out.most]
        return pairs.at(best.sort().values)
    pairs = pairs.at(pairs.scores.argsort(descending=True, stable=True))
    above = int((pairs.scores >= read_out.threshold).sum())
    return pairs.at(slice(min(max(above, read_out.least), read_out.most)))


def _suppressed_pairs(
    scores: Tensor, boxes_of: BoxesOf, read_out: ReadOut, overlap: float
) -> Pairs:
    threshold = read_out.threshold
    pairs = _surviving(scores, threshold, boxes_of, read_out, overlap)
    for _ in range(_HALVINGS if read_out.halves_threshold else 0):
        if len(pairs.scores) >= read_out.least:
            break
        threshold /= 2
        pairs = _surviving(scores, threshold, boxes_of, read_out, overlap)
    return pairs


def _surviving(
    scores: Tensor, above: float, boxes_of: BoxesOf, read_out: ReadOut, overlap: float
) -> Pairs:
    """The pairs that survive suppression in their class, by class and falling score.

    ``above``: pairs whose score exceeds it take part.
    """
    indices, classes = (scores > above).nonzero().unbind(dim=1)
    pairs = Pairs(indices, classes, scores[indices, classes])
    boxes = boxes_of(pairs.indices, pairs.classes)
    kept = [indices[:0]]
    for number in classes.unique().tolist():
        own = (classes == number).nonzero().squeeze(1)
        nms = CONVENTIONS[read_out.convention].nms
        kept.append(own[nms(boxes[own], pairs.scores[own], overlap)])
    return pairs.at(torch.cat(kept))


def _best_pairs(scores: Tensor, boxes_of: BoxesOf, read_out: ReadOut, overlap: float) -> Pairs:
    """The regions with the highest score that survives in its class, ``read_out.most`` at most.

    Which pairs survive doesn't depend on pairs of lower scores: pairs of high scores are enough as
    soon as they give as many regions.
    """
    ranked = scores.flatten().sort(descending=True).values
    taken = _PAIRS_PER_REGION * read_out.most
    while True:
        above = float(ranked[taken]) if taken < len(ranked) else -1.0
        pairs = _surviving(scores, above, boxes_of, read_out, overlap)
        pairs = pairs.at(pairs.scores.argsort(descending=True, stable=True))
        regions, first = _first_of_each(pairs.indices)
        if above < 0 or len(regions) >= read_out.most:
            break
        taken *= 2
    left = torch.ones(len(scores), dtype=torch.bool, device=scores.device)
    left[regions] = False  # suppressed in all classes
    none = left.nonzero().squeeze(1)
    best = pairs.at(first)
    return Pairs(
        torch.cat([best.indices, none]),
        torch.cat([best.classes, torch.zeros_like(none)]),
        torch.cat([best.scores, scores.new_zeros(len(none))]),
    )


def _first_of_each(values: Tensor) -> tuple[Tensor, Tensor]:
    """The different values, and the index at which each occurs first, these ascending."""
    different, inverse = values.unique(return_inverse=True)
    positions = torch.arange(len(values), device=values.device)
    first = positions.new_full((len(different),), len(values))
    first = first.scatter_reduce(0, inverse, positions, "amin")
    order = first.argsort()
    return different[order], first[order]
