"""The regions that a read-out chooses among the proposals of each image of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ..config.read_out import ReadOut
from .most_confident import BoxesOf, Selection, select_by_class
from .pairs import select_pairs

_EXCLUDED = 100  # scores up to the threshold divided by this have no part in suppression "once"


class Candidates(NamedTuple):
    """The proposals of an image.

    Attributes:
        proposals: float32 (R, 4), network pixels.
        scores: float32 (R, C), probabilities of the classes that take part.
        scales: network pixels per original pixel: one number, or float32 (4,) of x, y, x, y.
    """

    proposals: Tensor
    scores: Tensor
    scales: Tensor | float


@torch.no_grad()
def choose(
    images: Sequence[Candidates], read_out: ReadOut, regressed: BoxesOf | None = None
) -> list[Selection]:
    """The regions of each image that ``read_out`` chooses.

    ``regressed``: gives the boxes, network pixels, clipped, of proposals regressed for a class;
    needed by read-outs that regress.
    """
    if not images:
        return []
    scores = _padded([image.scores for image in images], -torch.inf)
    boxes = _padded(
        [i.proposals / i.scales if read_out.original_pixels else i.proposals for i in images], 0
    )

    def proposals(images: Tensor, regions: Tensor, _classes: Tensor) -> Tensor:
        return boxes[images, regions]

    boxes_of = regressed if read_out.regressed else proposals
    assert boxes_of is not None
    if read_out.suppression == "by_class":
        counts = [len(image.proposals) for image in images]
        selections = select_by_class(scores, counts, boxes_of, read_out)
    elif read_out.suppression == "pairs":
        selections = select_pairs(scores, read_out.threshold, boxes_of, read_out)
    else:
        selections = _once(scores, boxes_of, read_out)
    if not read_out.own_class:
        selections = [
            own._replace(classes=image.scores[own.indices].argmax(dim=1))
            for image, own in zip(images, selections, strict=True)
        ]
    return selections


def _once(scores: Tensor, boxes_of: BoxesOf, read_out: ReadOut) -> list[Selection]:
    """By suppression in a single class, which has each region's highest score."""
    values, classes = scores.max(dim=2, keepdim=True)

    def boxes_of_best(images: Tensor, regions: Tensor, _classes: Tensor) -> Tensor:
        return boxes_of(images, regions, classes[images, regions, 0])

    selections = select_pairs(values, read_out.threshold / _EXCLUDED, boxes_of_best, read_out)
    return [
        own._replace(classes=of_image[own.indices, 0])
        for own, of_image in zip(selections, classes, strict=True)
    ]


def _padded(rows: Sequence[Tensor], value: float) -> Tensor:
    """Tensors (R_i, ...) as one (N, R, ...), padded with ``value``."""
    if len(rows) == 1:
        return rows[0][None]
    return pad_sequence(list(rows), batch_first=True, padding_value=value)
