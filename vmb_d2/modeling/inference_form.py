"""A model in a faster form: batch norm folded, channels-last maps, another dtype.

On a CPU, convolutions additionally use oneDNN's operators: the weights are reordered once instead
of in each call, and sums and ReLUs are fused into the convolutions.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from detectron2.layers import Conv2d, FrozenBatchNorm2d, ROIAlign
from detectron2.modeling.backbone.resnet import BottleneckBlock
from torch import Tensor, nn
from torchvision.ops import RoIPool


def inference_form(model: nn.Module, dtype: torch.dtype) -> Any:
    """A copy of a VMB model for inference, whose results are the same up to rounding.

    Each frozen batch norm is folded into the convolution before it. Backbone, RPN and box head
    compute in ``dtype``, with channels-last maps. RoI pooling stays in float32, which the precision
    of boxes needs, and so do the attribute head and the last layers (objectness, classes, boxes),
    whose rounded outputs would often be equal where they are ranked. All outputs are float32.

    Args:
        model: in evaluation mode, in float32. It is not changed; the copy shares the weights that
            stay the same.
        dtype: of the weights and feature maps.
    """
    result = shared_copy(model)
    for module in result.modules():
        if isinstance(module, Conv2d) and isinstance(module.norm, FrozenBatchNorm2d):
            _fold(module)
    head, predictor = result.proposal_generator.rpn_head, result.roi_heads.box_predictor
    last = {head.objectness_logits, head.anchor_deltas, predictor.cls_score, predictor.bbox_pred}
    if result.predicts_attributes:
        last |= set(result.roi_heads.attribute_head.children())
    for module in result.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)) and module not in last:
            to: Any = module.to  # the stubs lack this overload
            to(dtype=dtype, memory_format=torch.channels_last)
        elif isinstance(module, (ROIAlign, RoIPool)):
            module.register_forward_pre_hook(_float_inputs)
            module.register_forward_hook(lambda _, inputs, pooled: pooled.to(dtype))
    # Converted once for both of the RPN's last layers.
    head.conv.register_forward_hook(lambda _, inputs, hidden: hidden.float())
    predictor.cls_score.register_forward_pre_hook(_float_inputs)
    predictor.bbox_pred.register_forward_pre_hook(_float_inputs)
    if model.device.type == "cpu" and can_fuse(dtype):
        fuse(result)
    result.backbone.register_forward_pre_hook(
        lambda _, inputs: (inputs[0].to(dtype=dtype, memory_format=torch.channels_last),)
    )
    return result


def shared_copy(model: nn.Module) -> Any:
    """A copy of a model for inference that shares the storage of its weights."""
    shared: dict[int, Any] = {id(b): b for b in model.buffers()}
    for p in model.parameters():
        shared[id(p)] = nn.Parameter(p.data, requires_grad=False)
    return copy.deepcopy(model, shared)


def _fold(convolution: Conv2d) -> None:
    """Fold a frozen batch norm into a convolution without a bias, computed in float64."""
    norm = convolution.norm
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    bias = norm.bias.double() - norm.running_mean.double() * scale
    weight = convolution.weight.double() * scale[:, None, None, None]
    convolution.weight = nn.Parameter(weight.float(), requires_grad=False)
    convolution.bias = nn.Parameter(bias.float(), requires_grad=False)
    convolution.norm = None


def _float_inputs(_, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(i.float() for i in inputs)


def can_fuse(dtype: torch.dtype) -> bool:
    """Whether PyTorch has oneDNN's fused operators, and they support ``dtype`` on this CPU."""
    return (
        torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported")
        and (dtype == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported())
    )


def fuse(module: nn.Module) -> None:
    """Replace convolutions without a norm, and bottleneck blocks, by the classes below, in place.

    For inference on a CPU only. The results are the same up to rounding: the sum of a block isn't
    rounded before its ReLU.

    Args:
        module: on the CPU, its weights in their final dtype and memory format.
    """
    for child in module.modules():
        if isinstance(child, Conv2d) and child.norm is None:
            child.__class__ = PackedConv2d  # the same object, since plain lists refer to it
        elif isinstance(child, BottleneckBlock):
            child.__class__ = FusedBottleneckBlock
            child.conv1.activation = child.conv2.activation = nn.ReLU()


class PackedConv2d(Conv2d):
    """Detectron2's ``Conv2d`` without a norm, of which an activation has to be a ReLU.

    The first call reorders the weights for oneDNN.
    """

    weight: nn.Parameter

    def forward(self, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
        """See :class:`detectron2.layers.Conv2d`.

        With a ``shortcut`` of the result's size, the ReLU of their sum, which overwrites it.
        """
        geometry = self.padding, self.stride, self.dilation, self.groups
        if not self.weight.is_mkldnn:
            reorder: Any = torch._C._nn.mkldnn_reorder_conv2d_weight  # its stub lacks a parameter
            packed = reorder(self.weight.to_mkldnn(), *geometry, x.shape)
            self.weight = nn.Parameter(packed, requires_grad=False)
        convolution = self.weight, self.bias, *geometry
        if shortcut is not None:
            add_ = torch.ops.mkldnn._convolution_pointwise_.binary
            return add_(shortcut, x, *convolution, "add", 1.0, "relu", [], "")
        function = "none" if self.activation is None else "relu"
        return torch.ops.mkldnn._convolution_pointwise(x, *convolution, function, [], "")


class FusedBottleneckBlock(BottleneckBlock):
    """Detectron2's ``BottleneckBlock`` of packed convolutions."""

    def forward(self, x: Tensor) -> Tensor:
        """See :class:`detectron2.modeling.BottleneckBlock`."""
        inner = self.conv2(self.conv1(x))
        # Copying is faster than the operator that doesn't write in place.
        shortcut = x.clone() if self.shortcut is None else self.shortcut(x)
        return self.conv3(inner, shortcut)
