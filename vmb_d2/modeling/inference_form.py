"""A model in the form in which it is run: batch norm folded, in another precision or layout."""

from __future__ import annotations

import copy

import torch
from detectron2.layers import Conv2d, FrozenBatchNorm2d, ROIAlign
from torch import Tensor, nn

from .fused_convolution import can_fuse, fuse


def inference_form(
    model: nn.Module,
    dtype: torch.dtype = torch.float32,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> nn.Module:
    """A copy of a VMB model, for inference, that gives the same up to rounding.

    Each frozen batch norm is folded into the convolution before it. Backbone, RPN and box head
    compute in ``dtype``. In float32 stay the pooling of regions, since boxes need its digits, and
    the last layers (objectness, classes, boxes), whose outputs are ranked: rounded, they would tie.
    Their outputs are float32, and so is all that comes after.

    Args:
        model: in evaluation mode, in float32. It is left as it is; the copy shares the weights
            that don't change.
        dtype: of the weights and maps.
        memory_format: of the convolutions' weights and maps.
    """
    shared = {id(p): nn.Parameter(p.data, requires_grad=False) for p in model.parameters()}
    shared |= {id(b): b for b in model.buffers()}
    result = copy.deepcopy(model, shared)
    for module in result.modules():
        if isinstance(module, Conv2d) and isinstance(module.norm, FrozenBatchNorm2d):
            _fold(module)
    head, predictor = result.proposal_generator.rpn_head, result.roi_heads.box_predictor
    last = {head.objectness_logits, head.anchor_deltas, predictor.cls_score, predictor.bbox_pred}
    for module in result.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)) and module not in last:
            module.to(dtype=dtype, memory_format=memory_format)
        elif isinstance(module, ROIAlign):
            module.register_forward_pre_hook(_float_inputs)
            module.register_forward_hook(lambda _, inputs, pooled: pooled.to(dtype))
    # Once for both of the RPN's last layers: it is the largest map.
    head.conv.register_forward_hook(lambda _, inputs, hidden: hidden.float())
    predictor.cls_score.register_forward_pre_hook(_float_inputs)
    predictor.bbox_pred.register_forward_pre_hook(_float_inputs)
    if dtype == torch.bfloat16 and model.device.type == "cpu" and can_fuse():
        fuse(result)
    result.backbone.register_forward_pre_hook(
        lambda _, inputs: (inputs[0].to(dtype=dtype, memory_format=memory_format),)
    )
    return result


def _fold(convolution: Conv2d) -> None:
    """Make a frozen batch norm part of the weights and bias before it, computed in float64."""
    norm = convolution.norm
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    bias = norm.bias.double() - norm.running_mean.double() * scale
    if convolution.bias is not None:
        bias += convolution.bias.double() * scale
    weight = convolution.weight.double() * scale[:, None, None, None]
    convolution.weight = nn.Parameter(weight.float(), requires_grad=False)
    convolution.bias = nn.Parameter(bias.float(), requires_grad=False)
    convolution.norm = None


def _float_inputs(_, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(i.float() for i in inputs)
