"""The regions that a read-out chooses among the proposals of each image of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..config.read_out import ReadOut
from ..structures.box_geometry import CONVENTIONS
from .most_confident import Selection, select_adaptively, select_regions
from .once import select_once
from .pairs import BoxesOf, chosen_pairs


class Candidates(NamedTuple):
    """The proposals of an image.

    Attributes:
        proposals: float32 (R, 4), network pixels.
        scores: float32 (R, C), probabilities of the classes that take part.
        scales: network pixels per original pixel: one number, or float32 (4,) of x, y, x, y.
        regressed: gives the boxes (K, 4), network pixels, clipped, of proposals regressed for a
            class, from their indices and the classes, (K,) each.
    """

    proposals: Tensor
    scores: Tensor
    scales: Tensor | float
    regressed: BoxesOf


class Choice(NamedTuple):
    """The regions chosen of an image.

    Attributes:
        indices: int64 (K,), of the proposals.
        classes: int64 (K,), columns of the scores.
        confidences: float32 (K,).
        boxes: float32 (K, 4), network pixels.
        num_boxes: how many have a confidence above 0.
    """

    indices: Tensor
    classes: Tensor
    confidences: Tensor
    boxes: Tensor
    num_boxes: int


@torch.no_grad()
def choose(images: Sequence[Candidates], read_out: ReadOut) -> list[Choice]:
    """The regions of each image that ``read_out`` chooses."""
    if read_out.suppression == "by_class" and not read_out.regressed:
        selections = _by_class(images, read_out)
    elif read_out.suppression == "once":
        selections = _once(images, read_out)
    else:
        selections = [_of_image(image, read_out) for image in images]
    choices = []
    for image, selection in zip(images, selections, strict=True):
        indices, classes = selection.indices, selection.classes
        if not read_out.own_class:
            classes = image.scores[indices].argmax(dim=1)
        boxes = image.proposals[indices]
        if read_out.regressed:
            boxes = image.regressed(indices, classes)
        confidences = selection.confidences
        choices.append(Choice(indices, classes, confidences, boxes, selection.num_boxes))
    return choices


def _by_class(images: Sequence[Candidates], read_out: ReadOut) -> list[Selection]:
    boxes = [i.proposals / i.scales if read_out.original_pixels else i.proposals for i in images]
    scores = [image.scores for image in images]
    most, threshold = read_out.most, read_out.threshold
    rule = CONVENTIONS[read_out.convention], read_out.overlaps[0]
    if read_out.threshold_excludes:
        return select_regions(boxes, scores, most, threshold, *rule)
    in_order = read_out.order == "proposal"
    counted = read_out.equal_counts, in_order
    return select_adaptively(boxes, scores, read_out.least, most, threshold, *rule, *counted)


def _once(images: Sequence[Candidates], read_out: ReadOut) -> list[Selection]:
    best = [image.scores.max(dim=1) for image in images]
    boxes = [image.proposals for image in images]
    if read_out.regressed:
        every = [torch.arange(len(b), device=b.device) for b in boxes]
        of_images = zip(images, every, best, strict=True)
        boxes = [image.regressed(indices, own.indices) for image, indices, own in of_images]
    scores, classes = [own.values for own in best], [own.indices for own in best]
    return select_once(boxes, scores, classes, read_out)


def _of_image(image: Candidates, read_out: ReadOut) -> Selection:
    def boxes_of(indices: Tensor, classes: Tensor) -> Tensor:
        return image.regressed(indices, classes) if read_out.regressed else image.proposals[indices]

    pairs = chosen_pairs(image.scores, boxes_of, read_out)
    return Selection(pairs.indices, pairs.scores, pairs.classes, int((pairs.scores > 0).sum()))
