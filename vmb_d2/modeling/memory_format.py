"""The memory format of each stage of a network: contiguous (NCHW) or channels-last (NHWC).

Which of them is faster depends on the GPU, the precision and the stage: grouped convolutions can be
slower in channels-last. Results differ by rounding only.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from detectron2.modeling import FPN
from detectron2.structures import ImageList
from torch import nn

from .inference_form import shared_copy

FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
_REPEATS = 2  # after one to warm up
_WHOLE = "whole"  # the network


def stages(model: Any) -> dict[str, list[nn.Module]]:
    """The modules of each stage that a VMB model has, in the order in which they are called.

    These are ``stem``, ``res2`` to ``res5``, ``fpn`` and ``rpn_head``. In a C4 model, ``res5``, of
    the regions, is the last.
    """
    backbone = model.backbone
    resnet = backbone.bottom_up if isinstance(backbone, FPN) else backbone
    found = {name: [module] for name, module in resnet.named_children()}
    if resnet is not backbone:
        found["fpn"] = [module for module in backbone.children() if module is not resnet]
    found["rpn_head"] = [model.proposal_generator.rpn_head]
    if hasattr(model.roi_heads, "res5"):
        found["res5"] = [model.roi_heads.res5]
    return found


def with_memory_formats(model: nn.Module, formats: Mapping[str, str]) -> Any:
    """A copy of a VMB model for inference, whose stages have the formats given.

    It shares the weights that stay the same. Each stage converts its input if it has to.

    Args:
        model: in evaluation mode, neither compiled nor with packed weights. It is not changed.
        formats: of each of its :func:`stages`, one of :data:`FORMATS`.
    """
    result = shared_copy(model)
    for name, modules in stages(result).items():
        memory_format = FORMATS[formats[name]]
        for module in modules:
            to: Any = module.to  # the stubs lack this overload
            to(memory_format=memory_format)
            module.register_forward_pre_hook(functools.partial(_converted, memory_format))
    return result


def fastest_memory_formats(
    model: nn.Module, images: ImageList, now: Callable[[], float]
) -> dict[str, str]:
    """The format of each stage in which it takes less time, measured.

    Where formats are mixed, inputs have to be converted in between: what is returned is mixed only
    if the whole network takes less time so than in either format alone.

    Args:
        model: see :func:`with_memory_formats`.
        images: see :meth:`vmb_d2.modeling.VMBRCNN.regions`.
        now: waits until the device is idle and returns the time in seconds.
    """
    uniform = {name: dict.fromkeys(stages(model), name) for name in FORMATS}
    seconds = {name: _seconds(model, formats, images, now) for name, formats in uniform.items()}
    best = min(FORMATS, key=lambda name: seconds[name][_WHOLE])
    mixed = {stage: min(FORMATS, key=lambda name: seconds[name][stage]) for stage in uniform[best]}
    if mixed in uniform.values():
        return mixed
    whole = _seconds(model, mixed, images, now)[_WHOLE]
    return mixed if whole < seconds[best][_WHOLE] else uniform[best]


def _seconds(
    model: nn.Module, formats: Mapping[str, str], images: ImageList, now: Callable[[], float]
) -> dict[str, float]:
    """The least time of each stage, its conversions included, and of the whole network."""
    timed = with_memory_formats(model, formats)
    seconds: dict[str, float] = {}

    def begin(name: str, *_: Any) -> None:
        seconds[name] -= now()

    def end(name: str, *_: Any) -> None:
        seconds[name] += now()

    for name, modules in stages(timed).items():
        for module in modules:
            module.register_forward_pre_hook(functools.partial(begin, name), prepend=True)
            module.register_forward_hook(functools.partial(end, name))
    passes = []
    for _ in range(1 + _REPEATS):
        seconds |= dict.fromkeys([*stages(timed), _WHOLE], 0.0)
        begin(_WHOLE)
        timed.regions(images, timed.feature_names)
        end(_WHOLE)
        passes.append(dict(seconds))
    return {name: min(each[name] for each in passes[1:]) for name in seconds}


def _converted(memory_format: torch.memory_format, _: nn.Module, inputs: tuple) -> tuple:
    """The input of a stage, a map or a list of maps, in a format."""
    (maps,) = inputs
    if isinstance(maps, list):
        return ([m.contiguous(memory_format=memory_format) for m in maps],)
    return (maps.contiguous(memory_format=memory_format),)
