"""The anchors of the 2015 Faster R-CNN code, which VMB kept, and box coding relative to them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from detectron2.modeling import ANCHOR_GENERATOR_REGISTRY
from detectron2.modeling.anchor_generator import BufferList, DefaultAnchorGenerator
from detectron2.modeling.box_regression import Box2BoxTransform
from torch import Tensor

from ..structures.box_geometry import to_exclusive, to_inclusive


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


class InclusiveBox2BoxTransform(Box2BoxTransform):
    """Detectron2's R-CNN box coding for inclusive boxes.

    VMB computes widths and centres with ``x2 - x1 + 1`` and subtracts 1 from the decoded x2 and y2,
    which equals Detectron2's coding of the same boxes in exclusive form.
    """

    def get_deltas(self, src_boxes: Tensor, target_boxes: Tensor) -> Tensor:
        """Deltas (R, 4) that turn inclusive ``src_boxes`` into inclusive ``target_boxes``."""
        return super().get_deltas(to_exclusive(src_boxes), to_exclusive(target_boxes))

    def apply_deltas(self, deltas: Tensor, boxes: Tensor) -> Tensor:
        """Decode boxes.

        Args:
            deltas: (R, 4 k), k predictions (dx, dy, dw, dh) of each box.
            boxes: (R, 4), inclusive.

        Returns:
            float32 (R, 4 k), inclusive boxes, not clipped.
        """
        decoded = super().apply_deltas(deltas, to_exclusive(boxes))
        return to_inclusive(decoded.view(-1, 4)).view(decoded.shape)
