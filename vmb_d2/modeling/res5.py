"""res5 of regions whose first 1x1 convolutions are computed before RoI pooling.

ROIAlign sums pixels of each channel, a 1x1 convolution sums channels of each pixel: both are
linear, so they can change places. On a CPU that saves up to a third of res5's multiplications: the
regions of an image have many times as many bins as its map has pixels, and of the bins only those
are pooled that the convolutions' stride keeps. Results differ by rounding.
"""

from __future__ import annotations

from typing import Any

import torch
from detectron2.layers import Conv2d
from detectron2.modeling.backbone.resnet import BottleneckBlock
from torch import Tensor, nn
from torch.nn import functional as F

from .inference_form import FusedBottleneckBlock
from .poolers import BagROIAlign


class PooledRes5:
    """res5 on the pooled regions of a map.

    Args:
        stage: of bottleneck blocks, the first of which has a shortcut of its own. For inference.
        pooler: of its input.
        feature: (N, C, H, W).
        regions: number of regions that there are. The first convolutions are the map's where that
            takes fewer multiplications, if the pooler is :class:`BagROIAlign` and on a CPU.
    """

    def __init__(self, stage: nn.Sequential, pooler: nn.Module, feature: Tensor, regions: int):
        self.stage, self.pooler, self.feature = stage, pooler, feature
        self.maps: list[Tensor] = []
        if isinstance(pooler, BagROIAlign) and feature.device.type == "cpu":
            first: Any = stage[0]
            convolutions = (first.conv1, first.shortcut)
            bins = sum(c.out_channels * _bins(pooler, c) for c in convolutions)
            pixels = feature[:, 0].numel() * sum(c.out_channels for c in convolutions)
            if regions * bins > pixels:
                # Pooling reads all channels of a pixel at a time.
                feature = feature.contiguous(memory_format=torch.channels_last)
                self.maps = [_linear(c, feature) for c in convolutions]

    def __call__(self, rois: Tensor) -> Tensor:
        """(R, C', H', W') of regions (R, 5): index of the map, box in network pixels."""
        if not self.maps:
            return self.stage(self.pooler(self.feature, rois))
        blocks: list[Any] = list(self.stage)
        first, *others = blocks
        strides = first.conv1.stride[0], first.shortcut.stride[0]
        pooled = [self.pooler(m, rois, step=s) for m, s in zip(self.maps, strides, strict=True)]
        inner = _affine(first.conv1, pooled[0]).relu_()
        x = _rest(first, inner, _affine(first.shortcut, pooled[1]))
        for block in others:
            x = block(x)
        return x


def _bins(pooler: BagROIAlign, convolution: Conv2d) -> int:
    """How many bins of a region a convolution reads."""
    rows, columns = (-(-side // convolution.stride[0]) for side in pooler.output_size)
    return rows * columns


def _linear(convolution: Conv2d, x: Tensor) -> Tensor:
    """A 1x1 convolution without its stride, and without what is added to it."""
    weight = convolution.weight
    return F.conv2d(x, weight.to_dense() if weight.is_mkldnn else weight)


def _affine(convolution: Conv2d, x: Tensor) -> Tensor:
    """What follows a convolution's sum. It has to follow RoI pooling: samples outside are 0."""
    if convolution.bias is not None:
        x = x.add_(convolution.bias[:, None, None])
    return x if convolution.norm is None else convolution.norm(x)


def _rest(block: BottleneckBlock, inner: Tensor, shortcut: Tensor) -> Tensor:
    """A block after its first convolution. Overwrites ``shortcut``."""
    if isinstance(block, FusedBottleneckBlock):
        return block.conv3(block.conv2(inner), shortcut)
    return block.conv3(block.conv2(inner).relu_()).add_(shortcut).relu_()
