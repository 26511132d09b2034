"""How a parameter is laid out in VMB and in Detectron2, where the two differ."""

from __future__ import annotations

import torch
from torch import Tensor

# Detectron2 adds this to the variance of a frozen batch norm; VMB adds nothing.
BATCH_NORM_EPS = 1e-5

BOX_DIM = 4


def background_last(rows: Tensor) -> Tensor:
    """A row a class: VMB has the background first, Detectron2 last."""
    return rows.roll(-1, dims=0)


def background_first(rows: Tensor) -> Tensor:
    """The inverse of :func:`background_last`."""
    return rows.roll(1, dims=0)


def without_background_boxes(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Split box regression into Detectron2's rows and VMB's four for the background.

    VMB regresses a box for the background too, never uses it, and has it first. With
    class-agnostic regression it has two "classes", of which the second is used.
    """
    return rows[BOX_DIM:], rows[:BOX_DIM]


def with_background_boxes(rows: Tensor, background: Tensor | None) -> Tensor:
    """The inverse of :func:`without_background_boxes`; zeros where ``background`` is lost."""
    if background is None:
        background = rows.new_zeros((BOX_DIM, *rows.shape[1:]))
    return torch.cat([background, rows])


def batch_norm_to_d2(weight: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """Weight and variance (C,) for a batch norm that adds an epsilon to the variance.

    The variance less epsilon; adding epsilon again restores it to the last bit or next to it.
    Where it would not (a variance far below epsilon), that channel is stored with variance 1 and
    its weight divided by the standard deviation, which is the same function.
    """
    stored = variance - BATCH_NORM_EPS
    lost = ((stored + BATCH_NORM_EPS) - variance).abs() > 1e-6 * variance
    unit = torch.ones_like(variance) - BATCH_NORM_EPS
    scaled = (weight.double() * variance.double().rsqrt()).to(weight.dtype)
    return torch.where(lost, scaled, weight), torch.where(lost, unit, stored)


def batch_norm_to_vmb(variance: Tensor) -> Tensor:
    """The variance that VMB stores for one that Detectron2 stores."""
    return variance + BATCH_NORM_EPS
