"""State dicts between VMB's layout and Detectron2's, with every key accounted for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from detectron2.modeling import build_model
from torch import Tensor

from vmb_d2.config import MODEL_NAMES, VMBModel, named_model, to_detectron2
from vmb_d2.errors import CheckpointError
from vmb_d2.modeling import cell_anchors

from . import layouts
from .mapping import ANCHORS, IGNORED, Layout, Parameter, parameter_map

State = Mapping[str, Tensor]


@dataclass
class Audit:
    """Every key of a VMB state dict, held against a model."""

    parameters: list[Parameter]
    d2_shapes: dict[str, tuple[int, ...]]
    ignored: dict[str, str] = field(default_factory=dict)
    anchors: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def problems(self) -> list[str]:
        """A line for each key that stands in the way of a conversion."""
        return [
            *(f"missing: {key}" for key in self.missing),
            *(f"unknown: {key}" for key in self.unknown),
            *self.wrong,
        ]


def detectron2_shapes(model: VMBModel) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every parameter and buffer of the Detectron2 model, built without memory."""
    cfg = to_detectron2(model)
    cfg.MODEL.DEVICE = "meta"
    with torch.device("meta"):
        network = build_model(cfg)
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def audit(state: State, model: VMBModel) -> Audit:
    """Hold the keys, shapes and anchors of a VMB state dict against ``model``."""
    result = Audit(parameter_map(model), detectron2_shapes(model))
    by_name = {p.vmb: p for p in result.parameters}
    anchors = anchors_of(model)
    unmapped = result.d2_shapes.keys() ^ {p.d2 for p in result.parameters}
    if unmapped:  # a defect of mapping.py, or a detectron2 that names its modules otherwise
        raise CheckpointError(f"no mapping for these parameters: {', '.join(sorted(unmapped))}")
    for key, tensor in state.items():
        if key in by_name:
            parameter = by_name[key]
            expected = parameter.vmb_shape(result.d2_shapes[parameter.d2])
            if tuple(tensor.shape) != expected:
                result.wrong.append(f"shape of {key}: {tuple(tensor.shape)}, not {expected}")
            elif parameter.layout is Layout.VARIANCE and not bool((tensor > 0).all()):
                result.wrong.append(f"values of {key}: a variance that is not positive")
        elif level := ANCHORS.fullmatch(key):
            result.anchors.append(key)
            ours = anchors[int(level[1])] if int(level[1]) < len(anchors) else None
            if ours is None or not torch.equal(tensor.float(), ours):
                result.wrong.append(f"values of {key}: not the anchors of this model's config")
        elif reason := next((r for pattern, r in IGNORED.items() if pattern.fullmatch(key)), None):
            result.ignored[key] = reason
        else:
            result.unknown.append(key)
    result.missing = [name for name in by_name if name not in state]
    return result


def to_d2(state: State, audited: Audit) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Convert an audited VMB state dict that has no problems.

    Returns:
        The Detectron2 state dict, float32, and the rows of VMB that it has no place for, by their
        Detectron2 name.
    """
    converted, dropped = {}, {}
    for parameter in audited.parameters:
        tensor = state[parameter.vmb].float()
        if parameter.layout is Layout.CLASS_ROWS:
            tensor = layouts.background_last(tensor)
        elif parameter.layout is Layout.BOX_ROWS:
            tensor, background = layouts.without_background_boxes(tensor)
            dropped[parameter.d2] = background.clone()
        elif parameter.layout is Layout.VARIANCE:
            weight = parameter.d2.replace("running_var", "weight")
            converted[weight], tensor = layouts.batch_norm_to_d2(converted[weight], tensor)
        converted[parameter.d2] = tensor.clone()
    return converted, dropped


def to_vmb(
    state: State, model: VMBModel, dropped: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """The way back: a VMB state dict, anchors included, from a Detectron2 one.

    ``dropped`` is the second value of :func:`to_d2`; without it those rows are zero.
    """
    parameters = parameter_map(model)
    differing = state.keys() ^ {p.d2 for p in parameters}
    if differing:
        raise CheckpointError(f"not this model's Detectron2 keys: {', '.join(sorted(differing))}")
    result = {}
    for parameter in parameters:
        tensor = state[parameter.d2]
        if parameter.layout is Layout.CLASS_ROWS:
            tensor = layouts.background_first(tensor)
        elif parameter.layout is Layout.BOX_ROWS:
            tensor = layouts.with_background_boxes(tensor, (dropped or {}).get(parameter.d2))
        elif parameter.layout is Layout.VARIANCE:
            tensor = layouts.batch_norm_to_vmb(tensor)
        result[parameter.vmb] = tensor.clone()
    for level, anchors in enumerate(anchors_of(model)):
        result[f"rpn.anchor_generator.cell_anchors.{level}"] = anchors
    return result


def anchors_of(model: VMBModel) -> list[Tensor]:
    """The inclusive cell anchors of each level."""
    sizes = [(size,) for size in model.anchor_sizes] if model.fpn else [model.anchor_sizes]
    return [
        cell_anchors(stride, level_sizes, model.aspect_ratios)
        for stride, level_sizes in zip(model.anchor_strides, sizes, strict=True)
    ]


def fitting_models(state: State) -> list[str]:
    """The names in MODEL_NAMES whose keys and shapes are those of a VMB state dict."""
    return [name for name in MODEL_NAMES if not audit(state, named_model(name)).problems()]
