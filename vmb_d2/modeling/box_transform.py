"""Box coding for inclusive boxes."""

from __future__ import annotations

from detectron2.modeling.box_regression import Box2BoxTransform
from torch import Tensor

from ..structures.box_geometry import to_exclusive, to_inclusive


class InclusiveBox2BoxTransform(Box2BoxTransform):
    """Detectron2's R-CNN box coding, between boxes whose width is ``x2 - x1 + 1``.

    VMB measures widths and centres with that width, and takes 1 off the decoded x2 and y2: what
    Detectron2 computes on the exclusive form of the same boxes.
    """

    def get_deltas(self, src_boxes: Tensor, target_boxes: Tensor) -> Tensor:
        """Deltas (R, 4) that turn inclusive ``src_boxes`` into inclusive ``target_boxes``."""
        return super().get_deltas(to_exclusive(src_boxes), to_exclusive(target_boxes))

    def apply_deltas(self, deltas: Tensor, boxes: Tensor) -> Tensor:
        """Decode.

        Args:
            deltas: (R, 4 k), k predictions (dx, dy, dw, dh) a box.
            boxes: (R, 4), inclusive.

        Returns:
            (R, 4 k) inclusive boxes, float32, not clipped.
        """
        decoded = super().apply_deltas(deltas, to_exclusive(boxes))
        return to_inclusive(decoded.view(-1, 4)).view(decoded.shape)
