"""Geometry of the detectors' boxes. Everything that depends on inclusive coordinates is here.

A box (x1, y1, x2, y2) is *inclusive* where its last column and row belong to it, so that its width
is ``x2 - x1 + 1``; VMB's are. Detectron2's and torchvision's boxes are *exclusive* (width
``x2 - x1``). What each lineage of detectors does with its boxes is a :class:`BoxConvention`. All
tensors of boxes are float32 of shape (R, 4), or (..., R, 4) where it says so, in XYXY order;
whether in network pixels or in original pixels is up to the caller.

Sources of the formulas: the behaviour of vqa-maskrcnn-benchmark and of MMF's
``extract_features_vmb.py`` (``VMB``), of scene_graph_benchmark (``VINVL``), of
unc-nlp/frcnn-vg-finetuned (``FRCNN_VG``), and of bottom-up-attention.pytorch (``BUA``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torchvision
from torch import Tensor

from .batched_nms import kept_at_once, kept_in_turn


def to_exclusive(boxes: Tensor) -> Tensor:
    """Inclusive boxes of shape (..., 4) as exclusive ones: x2 and y2 one further."""
    return boxes + _is_end(boxes)


def to_inclusive(boxes: Tensor) -> Tensor:
    """Exclusive boxes of shape (..., 4) as inclusive ones: x2 and y2 one less."""
    return boxes - _is_end(boxes).float()


def _is_end(boxes: Tensor) -> Tensor:
    """Bool (4,): which coordinates are x2 and y2. Made on the device: none waits for a copy."""
    return torch.arange(4, device=boxes.device) >= 2


@dataclass(frozen=True)
class BoxConvention:
    """What a lineage of detectors does with its boxes.

    Attributes:
        name: of the lineage.
        inclusive: whether (x2, y2) is the last pixel of a box. If so, a width is ``x2 - x1 + 1``,
            and boxes are clipped to [0, size - 1]; else ``x2 - x1`` and [0, size].
        decodes_to_inclusive: whether decoding deltas takes 1 off x2 and y2.
        nms_inclusive: whether the overlaps of non-maximum suppression are those of inclusive boxes.
        nms_drops_equal: the types of devices on which NMS drops a box whose overlap equals the
            threshold.
        clips_given: whether given boxes are clipped to the image, in original pixels.
    """

    name: str
    inclusive: bool
    decodes_to_inclusive: bool
    nms_inclusive: bool
    nms_drops_equal: tuple[str, ...] = ()
    clips_given: bool = False

    def sides(self, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Widths and heights, each of shape (..., R), of boxes (..., R, 4)."""
        return boxes[..., 2] - boxes[..., 0] + self.inclusive, (
            boxes[..., 3] - boxes[..., 1] + self.inclusive
        )

    def exclusive(self, boxes: Tensor) -> Tensor:
        """Boxes (..., 4) as exclusive ones."""
        return to_exclusive(boxes) if self.inclusive else boxes

    def from_exclusive(self, boxes: Tensor) -> Tensor:
        """Exclusive boxes (..., 4) as the lineage has them."""
        return to_inclusive(boxes) if self.inclusive else boxes

    def clip(self, boxes: Tensor, size: tuple[int, int] | tuple[Tensor, Tensor]) -> Tensor:
        """Clip boxes (..., R, 4) to images of ``size`` (height, width).

        Height and width are numbers, or tensors that broadcast to (..., R, 1). An inclusive box
        completely outside becomes one pixel wide at the border.
        """
        height, width = (side - int(self.inclusive) for side in size)
        result = boxes.clamp(min=0)
        result[..., 0::2].clamp_(max=width)
        result[..., 1::2].clamp_(max=height)
        return result

    def has_sides_of(
        self, boxes: Tensor, min_size: float | Tensor, exceeded: bool = False
    ) -> Tensor:
        """Bool tensor (..., R): which boxes have both sides of at least ``min_size`` pixels.

        ``min_size`` is a number, or a tensor that broadcasts to (..., R). With ``exceeded``, those
        with both sides larger than that, and x2 > x1, y2 > y1.
        """
        smaller = torch.minimum(*self.sides(boxes))
        if not exceeded:
            return smaller >= min_size
        return (smaller > min_size) & (smaller > self.inclusive)

    def overlapping(self, boxes: Tensor, threshold: float) -> Tensor:
        """Bool tensor (..., R, R): which pairs overlap so much that NMS drops one of the two.

        Their intersection over union is rounded as the lineage's NMS rounds it. The rule for an
        overlap equal to the threshold is that of the device of ``boxes`` (..., R, 4). The diagonal
        is False.
        """
        top_left = torch.maximum(boxes[..., :, None, :2], boxes[..., None, :, :2])
        bottom_right = torch.minimum(boxes[..., :, None, 2:], boxes[..., None, :, 2:])
        overlap = (bottom_right - top_left + self.nms_inclusive).clamp(min=0)
        intersection = overlap[..., 0] * overlap[..., 1]
        own = boxes[..., 2:] - boxes[..., :2] + self.nms_inclusive
        areas = own[..., 0] * own[..., 1]
        union = areas[..., :, None] + areas[..., None, :] - intersection
        result = intersection / union > self._exceeded_at(threshold, boxes.device)
        result.diagonal(dim1=-2, dim2=-1).fill_(False)
        return result

    def nms(self, boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
        """Greedy non-maximum suppression.

        Args:
            boxes: (R, 4).
            scores: (R,).
            threshold: overlap above which the box with the lower score is dropped; see
                :meth:`overlapping` for an overlap equal to it.

        Returns:
            int64 tensor of the indices kept, by falling score; equal scores in the order given.
        """
        order = scores.argsort(descending=True, stable=True)
        ranked = boxes[order]
        if self.nms_inclusive:
            ranked = to_exclusive(ranked)
        exceeded_at = self._exceeded_at(threshold, boxes.device)
        return order[torchvision.ops.nms(ranked, scores[order], exceeded_at)]

    def kept(self, boxes: Tensor, candidates: Tensor, threshold: float) -> Tensor:
        """Greedy non-maximum suppression in each of several sets of boxes.

        It keeps the boxes that :meth:`nms` does. A GPU doesn't let the host wait for each set; on
        the CPU, torchvision's loop over each is faster.

        Args:
            boxes: (B, K, 4) of B sets, within each by falling score.
            candidates: bool (B, K), which boxes take part.
            threshold: see :meth:`nms`.

        Returns:
            bool (B, K).
        """
        if self.nms_inclusive:
            boxes = to_exclusive(boxes)
        kept_of = kept_in_turn if boxes.device.type == "cpu" else kept_at_once
        return kept_of(boxes, candidates, self._exceeded_at(threshold, boxes.device))

    def _exceeded_at(self, threshold: float, device: torch.device) -> float:
        """The number that an overlap has to exceed by the lineage's rule on ``device``."""
        value = np.float32(threshold)
        if device.type in self.nms_drops_equal:  # x >= value: x > the next smaller float32
            value = np.nextafter(value, np.float32(-np.inf))
        return float(value)


VMB = BoxConvention("vmb", True, True, True, nms_drops_equal=("cpu",))
VINVL = BoxConvention("vinvl", True, True, False, clips_given=True)
FRCNN_VG = BoxConvention("frcnn_vg", False, False, False)
BUA = BoxConvention("bua", True, False, True, nms_drops_equal=("cpu", "cuda"))

CONVENTIONS = {convention.name: convention for convention in (VMB, VINVL, FRCNN_VG, BUA)}


def assign_fpn_levels(boxes: Tensor, min_level: int, max_level: int) -> Tensor:
    """FPN level of each of VMB's boxes, int64 of shape (R,), in [min_level, max_level].

    Equation 1 of the FPN paper with a canonical box of 224 pixels on level 4, the inclusive area,
    and VMB's 1e-6 against rounding. ``boxes`` are in network pixels.
    """
    widths, heights = VMB.sides(boxes)
    levels = torch.floor(4 + torch.log2((widths * heights).sqrt() / 224 + 1e-6))
    return levels.clamp(min_level, max_level).to(torch.int64)
