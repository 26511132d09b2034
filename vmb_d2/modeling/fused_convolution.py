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
    """Whether this PyTorch has the operators, which its compiler uses, for bfloat16 on this CPU."""
    operators = torch.ops.mkldnn
    return (
        torch.backends.mkldnn.is_available()
        and hasattr(operators, "_convolution_pointwise")
        and hasattr(torch._C._nn, "mkldnn_reorder_conv2d_weight")
        and hasattr(operators, "_is_mkldnn_bf16_supported")
        and operators._is_mkldnn_bf16_supported()
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
            child.conv1.activation = child.conv2.activation = nn.ReLU()


class PackedConv2d(Conv2d):
    """Detectron2's ``Conv2d`` without a norm, its weights packed where it is called first."""

    def forward(self, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
        """See :class:`detectron2.layers.Conv2d`.

        With a ``shortcut`` of the result's size, ReLU of their sum, which is put in its place.
        """
        geometry = self.padding, self.stride, self.dilation, self.groups
        if not self.weight.is_mkldnn:
            packed = torch._C._nn.mkldnn_reorder_conv2d_weight(
                self.weight.to_mkldnn(), *geometry, x.shape
            )
            self.weight = nn.Parameter(packed, requires_grad=False)
        convolution = self.weight, self.bias, *geometry
        if shortcut is not None:
            add_ = torch.ops.mkldnn._convolution_pointwise_.binary
            return add_(shortcut, x, *convolution, "add", 1.0, "relu", [], "")
        is_relu = isinstance(self.activation, nn.ReLU)
        function = "relu" if is_relu else "none"
        x = torch.ops.mkldnn._convolution_pointwise(x, *convolution, function, [], "")
        return x if is_relu or self.activation is None else self.activation(x)


class FusedBottleneckBlock(BottleneckBlock):
    """Detectron2's ``BottleneckBlock`` of packed convolutions."""

    def forward(self, x: Tensor) -> Tensor:
        """See :class:`detectron2.modeling.BottleneckBlock`."""
        inner = self.conv2(self.conv1(x))
        # A copy takes less time than the operator that leaves the other summand as it is.
        shortcut = x.clone() if self.shortcut is None else self.shortcut(x)
        return self.conv3(inner, shortcut)
