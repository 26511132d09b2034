"""VMB's components, registered with Detectron2, which is prepared first."""

# ruff: noqa: E402

from .compat import prepare_detectron2

prepare_detectron2()

# isort: split
from ..config import get_cfg
from .anchors import ConventionBox2BoxTransform, StoredAnchorGenerator, cell_anchors
from .backbone import build_ceil_pool_resnet_backbone
from .meta_arch import VMBRCNN, NetworkOutput
from .network_batch import NetworkBatch
from .roi_heads import VMBRes5ROIHeads, VMBStandardROIHeads
from .rpn import VMBRPN

__all__ = [
    "VMBRCNN",
    "VMBRPN",
    "ConventionBox2BoxTransform",
    "NetworkBatch",
    "NetworkOutput",
    "StoredAnchorGenerator",
    "VMBRes5ROIHeads",
    "VMBStandardROIHeads",
    "build_ceil_pool_resnet_backbone",
    "cell_anchors",
    "get_cfg",
]
