"""Choice of regions as pairs of a proposal and a class: those that survive suppression."""

from __future__ import annotations

import functools
import itertools

import torch
from torch import Tensor

from ..config.read_out import ReadOut
from ..structures.box_geometry import CONVENTIONS
from .most_confident import BoxesOf, Selection
from .suppression import survivors_of_own_boxes

_HALVINGS = 10  # of the threshold, at most


def select_pairs(
    scores: Tensor, threshold: float, boxes_of: BoxesOf, read_out: ReadOut
) -> list[Selection]:
    """The regions of each image that ``read_out`` chooses, in its order.

    Args:
        scores: float32 (N, R, C), probabilities of the classes; -inf for regions that an image
            doesn't have.
        threshold: pairs whose score exceeds it take part in suppression.
        boxes_of: gives the boxes.
        read_out: one that suppresses ``"pairs"`` or ``"once"``.
    """
    convention = CONVENTIONS[read_out.convention]
    images = torch.arange(len(scores), device=scores.device)
    boxes_of_images = functools.partial(boxes_of, images[:, None, None])
    survives = torch.zeros_like(scores, dtype=torch.bool)
    few = torch.ones(len(scores), 1, 1, dtype=torch.bool, device=scores.device)
    halvings = range(1 + (_HALVINGS if read_out.halves_threshold else 0))
    for overlap, halving in itertools.product(read_out.overlaps, halvings):
        candidates = (scores > threshold / 2**halving) & few
        found = survivors_of_own_boxes(scores, candidates, boxes_of_images, convention, overlap)
        survives = found.where(few, survives)
        counted = survives & (scores >= read_out.threshold)
        numbers = torch.stack([survives, counted], dim=1).flatten(2).sum(dim=2)
        few = (numbers[:, 0] < read_out.least)[:, None, None]
        counts, above = zip(*numbers.tolist(), strict=True)
        if min(counts) >= read_out.least:
            break
    images, classes, regions = survives.transpose(1, 2).nonzero().unbind(dim=1)
    pairs = regions, classes, scores[images, regions, classes]
    of_images = [values.split(counts) for values in pairs]
    result = []
    for regions, classes, values, exceeding in zip(*of_images, above, strict=True):
        by_class = read_out.order == "class"
        count = read_out.most if by_class else min(max(exceeding, read_out.least), read_out.most)
        order = values.argsort(descending=True, stable=True)[:count]  # equal ones by class, region
        if by_class:
            order = order[classes[order].argsort(stable=True)]
        result.append(Selection(regions[order], values[order], classes[order], len(order)))
    return result
