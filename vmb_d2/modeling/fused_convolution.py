"""Convolutions on a CPU as oneDNN runs them best: weights in its layout, what follows fused in.

In bfloat16 PyTorch's own convolution brings the weights into that layout each time, and sums, ReLUs
and the pages of their results take a tenth of a network's time.
"""

from __future__ import annotations

import torch
from detectron2.layers import Conv2d
from detectron2.modeling.backbone.resnet import BottleneckBlock
from torch import Tensor, nn


def can_fuse() -> bool:
    """Whether this PyTorch has oneDNN's operators, the ones that its compiler uses."""
    return (
        torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
        and hasattr(torch._C._nn, "mkldnn_reorder_conv2d_weight")
    )


def fuse(module: nn.Module) -> None:
    """Turn the convolutions in ``module`` that have no norm, and its bottleneck blocks, into these.

    For inference on a CPU only. The results are the same up to rounding: a block's sum isn't
    rounded before its ReLU.

    Args:
        module: on the CPU, its weights ready: in their precision and layout.
    """
    for child in module.modules():
        if isinstance(child, Conv2d) and child.norm is None:
            child.__class__ = PackedConv2d  # lists refer to it, so it can't be exchanged
        elif isinstance(child, BottleneckBlock):
            child.__class__ = FusedBottleneckBlock


class PackedConv2d(Conv2d):
    """Detectron2's ``Conv2d`` without a norm, its weights packed where it is called first."""

    def forward(self, x: Tensor) -> Tensor:
        """See :class:`detectron2.layers.Conv2d`."""
        if isinstance(self.activation, nn.ReLU):
            return self.then(x, "relu")
        x = self.then(x, "none")
        return x if self.activation is None else self.activation(x)

    def then(self, x: Tensor, function: str) -> Tensor:
        """The convolution of ``x`` and a function, ``relu`` or ``none``."""
        arguments = self._arguments(x)
        return torch.ops.mkldnn._convolution_pointwise(x, *arguments, function, [], "")

    def plus_then_relu(self, x: Tensor, other: Tensor) -> Tensor:
        """ReLU of the sum of the convolution of ``x`` and of ``other``, which is its size."""
        add = torch.ops.mkldnn._convolution_pointwise.binary
        return add(x, other, *self._arguments(x), "add", 1.0, "relu", [], "")

    def _arguments(self, x: Tensor) -> tuple:
        geometry = self.padding, self.stride, self.dilation, self.groups
        if not self.weight.is_mkldnn:
            packed = torch._C._nn.mkldnn_reorder_conv2d_weight(
                self.weight.to_mkldnn(), *geometry, x.shape
            )
            self.weight = nn.Parameter(packed, requires_grad=False)
        return self.weight, self.bias, *geometry


class FusedBottleneckBlock(BottleneckBlock):
    """Detectron2's ``BottleneckBlock`` of packed convolutions."""

    def forward(self, x: Tensor) -> Tensor:
        """See :class:`detectron2.modeling.BottleneckBlock`."""
        shortcut = x if self.shortcut is None else self.shortcut(x)
        inner = self.conv2.then(self.conv1.then(x, "relu"), "relu")
        return self.conv3.plus_then_relu(inner, shortcut)
