"""The anchors of the 2015 Faster R-CNN code, which VMB kept."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from detectron2.modeling import ANCHOR_GENERATOR_REGISTRY
from detectron2.modeling.anchor_generator import BufferList, DefaultAnchorGenerator


def cell_anchors(
    stride: int, sizes: Sequence[float], aspect_ratios: Sequence[float]
) -> torch.Tensor:
    """Inclusive anchors of the grid cell at the origin.

    The cell is the window (0, 0, stride - 1, stride - 1). Each aspect ratio (height / width) is
    applied to that window and rounded to whole pixels, then scaled by size / stride around the
    window's centre.

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
    half_sides = (np.stack([widths, heights], axis=1)[:, None] * scales[:, None] - 1) / 2
    centre = (stride - 1) / 2
    boxes = np.concatenate([centre - half_sides, centre + half_sides], axis=-1)
    return torch.tensor(boxes.reshape(-1, 4).tolist(), dtype=torch.float32)


@ANCHOR_GENERATOR_REGISTRY.register()
class VMBAnchorGenerator(DefaultAnchorGenerator):
    """Detectron2's anchor grid over :func:`cell_anchors`. The anchors are inclusive boxes."""

    def _calculate_anchors(self, sizes, aspect_ratios):
        levels = zip(self.strides, sizes, aspect_ratios, strict=True)
        return BufferList([cell_anchors(*level) for level in levels])
