"""The ResNet whose first pooling has no padding, as in Caffe."""

from __future__ import annotations

from detectron2.modeling import BACKBONE_REGISTRY, build_resnet_backbone
from detectron2.modeling.backbone.resnet import BasicStem
from torch import Tensor
from torch.nn import functional as F


class CeilPoolStem(BasicStem):
    """Detectron2's stem with max pooling without padding, in ceil mode."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, C, ...), a quarter of H and W, rounded up."""
        return F.max_pool2d(F.relu_(self.conv1(x)), kernel_size=3, stride=2, ceil_mode=True)


@BACKBONE_REGISTRY.register()
def build_ceil_pool_resnet_backbone(cfg, input_shape):
    """:func:`detectron2.modeling.build_resnet_backbone` with a :class:`CeilPoolStem`."""
    backbone = build_resnet_backbone(cfg, input_shape)
    resnets = cfg.MODEL.RESNETS
    backbone.stem = CeilPoolStem(input_shape.channels, resnets.STEM_OUT_CHANNELS, resnets.NORM)
    return backbone
