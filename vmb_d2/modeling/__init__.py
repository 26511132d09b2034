"""VMB's components, registered with Detectron2, which is prepared first."""

# ruff: noqa: E402

from .compat import prepare_detectron2

prepare_detectron2()

# isort: split
from ..config import get_cfg
from .anchors import VMBAnchorGenerator, cell_anchors
from .box_transform import InclusiveBox2BoxTransform
from .meta_arch import SIZE_DIVISIBILITY, VMBRCNN
from .roi_heads import TwoFCHead, VMBOutputLayers, VMBRes5ROIHeads, VMBStandardROIHeads
from .roi_pooler import InclusiveROIPooler
from .rpn import VMBRPN

__all__ = [
    "SIZE_DIVISIBILITY",
    "VMBRCNN",
    "VMBRPN",
    "InclusiveBox2BoxTransform",
    "InclusiveROIPooler",
    "TwoFCHead",
    "VMBAnchorGenerator",
    "VMBOutputLayers",
    "VMBRes5ROIHeads",
    "VMBStandardROIHeads",
    "cell_anchors",
    "get_cfg",
]
