"""Geometry of VMB's boxes. Everything that depends on inclusive coordinates is here.

A VMB box (x1, y1, x2, y2) is *inclusive*: its last column and row belong to it, so its width is
``x2 - x1 + 1``. Detectron2's and torchvision's boxes are *exclusive* (width ``x2 - x1``). Boxes in
this package are inclusive unless a name says otherwise. All tensors of boxes are float32 of shape
(R, 4), or (..., R, 4) where it says so, in XYXY order; whether in network pixels or in original
pixels is up to the caller.
"""

from __future__ import annotations

import numpy as np
import torch
import torchvision
from torch import Tensor


def to_exclusive(boxes: Tensor) -> Tensor:
    """Inclusive boxes of shape (..., 4) as exclusive ones: x2 and y2 one further."""
    return boxes + boxes.new_tensor([0.0, 0.0, 1.0, 1.0])


def to_inclusive(boxes: Tensor) -> Tensor:
    """Exclusive boxes of shape (..., 4) as inclusive ones: x2 and y2 one less."""
    return boxes - boxes.new_tensor([0.0, 0.0, 1.0, 1.0])


def sides(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Widths and heights, each of shape (..., R), of boxes (..., R, 4)."""
    return boxes[..., 2] - boxes[..., 0] + 1, boxes[..., 3] - boxes[..., 1] + 1


def area(boxes: Tensor) -> Tensor:
    """Areas (..., R) of boxes (..., R, 4), in square pixels."""
    widths, heights = sides(boxes)
    return widths * heights


def clip(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Clip boxes to an image of ``size`` (height, width): x to [0, width - 1], y likewise.

    A box completely outside becomes one pixel wide at the border; VMB keeps it.
    """
    height, width = size
    last = boxes.new_tensor([width - 1, height - 1, width - 1, height - 1])
    return torch.minimum(boxes.clamp(min=0), last)


def has_sides_of(boxes: Tensor, min_size: float) -> Tensor:
    """Bool tensor (R,): which boxes have both sides of at least ``min_size`` pixels."""
    widths, heights = sides(boxes)
    return (widths >= min_size) & (heights >= min_size)


def overlapping(boxes: Tensor, threshold: float) -> Tensor:
    """Bool tensor (..., R, R): which pairs overlap so much that NMS drops one of the two.

    Their intersection over union is rounded as VMB's NMS rounds it. For an overlap equal to the
    threshold, VMB's NMS drops the box on the CPU and keeps it on the GPU. The same rule is applied
    here, by the device of ``boxes`` (..., R, 4). The diagonal is False.
    """
    top_left = torch.maximum(boxes[..., :, None, :2], boxes[..., None, :, :2])
    bottom_right = torch.minimum(boxes[..., :, None, 2:], boxes[..., None, :, 2:])
    overlap = (bottom_right - top_left + 1).clamp(min=0)
    intersection = overlap[..., 0] * overlap[..., 1]
    areas = area(boxes)
    union = areas[..., :, None] + areas[..., None, :] - intersection
    result = intersection / union > _exceeded_at(threshold, boxes.device)
    result.diagonal(dim1=-2, dim2=-1).fill_(False)
    return result


def nms(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Greedy non-maximum suppression.

    Args:
        boxes: (R, 4), inclusive.
        scores: (R,).
        threshold: overlap above which the box with the lower score is dropped; see
            :func:`overlapping` for an overlap equal to it.

    Returns:
        int64 tensor of the indices kept, by falling score; equal scores in the order given.
    """
    order = scores.argsort(descending=True, stable=True)
    exclusive = to_exclusive(boxes[order])
    exceeded_at = _exceeded_at(threshold, boxes.device)
    return order[torchvision.ops.nms(exclusive, scores[order], exceeded_at)]


def assign_fpn_levels(boxes: Tensor, min_level: int, max_level: int) -> Tensor:
    """FPN level of each box, int64 of shape (R,), in [min_level, max_level].

    Equation 1 of the FPN paper with a canonical box of 224 pixels on level 4, the inclusive area,
    and VMB's 1e-6 against rounding. ``boxes`` are in network pixels.
    """
    levels = torch.floor(4 + torch.log2(area(boxes).sqrt() / 224 + 1e-6))
    return levels.clamp(min_level, max_level).to(torch.int64)


def _exceeded_at(threshold: float, device: torch.device) -> float:
    """The number that an overlap has to exceed by VMB's rule on ``device``."""
    value = np.float32(threshold)
    if device.type == "cpu":  # x >= value is the same as x > the next smaller float32
        value = np.nextafter(value, np.float32(-np.inf))
    return float(value)
