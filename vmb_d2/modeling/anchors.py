"""Anchors, of the 2015 Faster R-CNN code or of a checkpoint, and box coding relative to them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from detectron2.modeling import ANCHOR_GENERATOR_REGISTRY
from detectron2.modeling.anchor_generator import BufferList, DefaultAnchorGenerator
from detectron2.modeling.box_regression import Box2BoxTransform
from torch import Tensor, nn

from ..structures.box_geometry import VMB, BoxConvention, to_inclusive


def cell_anchors(stride: int, sizes: Sequence[float], aspect_ratios: Sequence[float]) -> Tensor:
    """Inclusive anchors of the grid cell at the origin.

    The cell is a square whose side is the stride. Each aspect ratio (height / width) is applied to
    it and rounded to whole pixels, then the result is scaled by size / stride around its centre.

    Args:
        stride: of the feature map, in network pixels.
        sizes: sides of the square anchors, in network pixels.
        aspect_ratios: height / width.

    Returns:
        float32 (len(aspect_ratios) * len(sizes), 4); the ratio varies slowest, the size fastest.
    """
    ratios = np.asarray(aspect_ratios, dtype=np.float64)
    widths = np.round(np.sqrt(stride * stride / ratios))
    heights = np.round(widths * ratios)
    scales = np.asarray(sizes, dtype=np.float64) / stride
    half_sides = np.stack([widths, heights], axis=1)[:, None] * scales[:, None] / 2
    boxes = np.concatenate([stride / 2 - half_sides, stride / 2 + half_sides], axis=-1)
    exclusive = torch.tensor(boxes.reshape(-1, 4).tolist(), dtype=torch.float64)
    return to_inclusive(exclusive).float()


@ANCHOR_GENERATOR_REGISTRY.register()
class VMBAnchorGenerator(DefaultAnchorGenerator):
    """Detectron2's anchor grid over :func:`cell_anchors`. The anchors are inclusive boxes."""

    def _calculate_anchors(self, sizes, aspect_ratios):
        levels = zip(self.strides, sizes, aspect_ratios, strict=True)
        return BufferList([cell_anchors(*level) for level in levels])


@ANCHOR_GENERATOR_REGISTRY.register()
class StoredAnchorGenerator(DefaultAnchorGenerator):
    """Detectron2's anchor grid over the cell anchors of a checkpoint.

    Their number is that of the configured sizes times aspect ratios. They are part of the state
    dict, as ``cell_anchors.0`` float32 (A, 4), zeros until it is loaded.
    """

    def _calculate_anchors(self, sizes, aspect_ratios):
        stored = nn.Module()
        for level, (own_sizes, ratios) in enumerate(zip(sizes, aspect_ratios, strict=True)):
            zeros = torch.zeros(len(own_sizes) * len(ratios), 4)
            stored.register_buffer(str(level), zeros)
        return stored

    @property
    def num_anchors(self):
        """The number of cell anchors of each level."""
        return [len(anchors) for anchors in self.cell_anchors.buffers()]


class ConventionBox2BoxTransform(Box2BoxTransform):
    """Detectron2's R-CNN box coding for boxes of a convention.

    VMB computes widths and centres with ``x2 - x1 + 1`` and subtracts 1 from the decoded x2 and y2,
    which equals Detectron2's coding of the same boxes in exclusive form.

    Args:
        weights: of dx, dy, dw and dh.
        convention: of the boxes.
    """

    def __init__(self, weights: Sequence[float], convention: BoxConvention = VMB):
        super().__init__(weights)
        self.convention = convention

    def apply_deltas(self, deltas: Tensor, boxes: Tensor) -> Tensor:
        """Decode boxes.

        Args:
            deltas: (R, 4 k), k predictions (dx, dy, dw, dh) of each box.
            boxes: (R, 4).

        Returns:
            float32 (R, 4 k), boxes, not clipped.
        """
        decoded = super().apply_deltas(deltas, self.convention.exclusive(boxes))
        if not self.convention.decodes_to_inclusive:
            return decoded
        return to_inclusive(decoded.view(-1, 4)).view(decoded.shape)
