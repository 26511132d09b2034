"""VMB's components, registered with Detectron2, which is prepared first."""

# ruff: noqa: E402

from .compat import prepare_detectron2

prepare_detectron2()

# isort: split
from ..config import get_cfg
from .anchors import InclusiveBox2BoxTransform, cell_anchors
from .meta_arch import VMBRCNN
from .roi_heads import VMBRes5ROIHeads, VMBStandardROIHeads
from .rpn import VMBRPN

__all__ = [
    "VMBRCNN",
    "VMBRPN",
    "InclusiveBox2BoxTransform",
    "VMBRes5ROIHeads",
    "VMBStandardROIHeads",
    "cell_anchors",
    "get_cfg",
]
