"""Conversion of state dicts between an original's layout and Detectron2's, key by key."""

from __future__ import annotations

import vmb_d2.modeling  # noqa: F401  (prepares detectron2 for the imports below)

# isort: split

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from detectron2.modeling import build_model
from torch import Tensor

from vmb_d2.config import VMBModel, to_detectron2
from vmb_d2.errors import CheckpointError
from vmb_d2.modeling import cell_anchors

from .mapping import ANCHORS, BOX_DIM, IGNORED, TWINS, Layout, Parameter, parameter_map

State = Mapping[str, Tensor]

# Detectron2 adds this to the variance of a frozen batch norm; VMB adds nothing.
BATCH_NORM_EPS = 1e-5

LEFT_OVER = "left over: the model has no such parameter, the original ignores them too"

# Statistics of batch norms -> their values where a state dict has none, such as one from Caffe2.
ASSUMED = {"running_mean": 0.0, "running_var": 1.0}


@dataclass
class Audit:
    """What each key of a VMB state dict is in a model.

    Attributes:
        parameters: all parameters of the model.
        d2_shapes: their shapes in Detectron2, by their Detectron2 names.
        sources: the key of each parameter found, by the parameter's name in VMB.
        assumed: whether the file lacks all statistics of batch norms, which get those of ASSUMED.
        ignored: keys that are not converted -> why.
        problems: a line for each reason against the conversion.
    """

    parameters: list[Parameter]
    d2_shapes: dict[str, tuple[int, ...]]
    sources: dict[str, str] = field(default_factory=dict)
    assumed: bool = False
    ignored: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def without_missing_head(state: State, model: VMBModel) -> VMBModel:
    """The model without a head for attributes where a state dict has none."""
    if model.attributes is None:
        return model
    heads = set(parameter_map(model)) - set(parameter_map(model.without_attributes()))
    has_head = any(suffix in state for p in heads for suffix in _suffixes(p.vmb))
    return model if has_head else model.without_attributes()


def detectron2_shapes(model: VMBModel) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every parameter and buffer of the Detectron2 model."""
    cfg = to_detectron2(model)
    cfg.MODEL.DEVICE = "meta"
    with torch.device("meta"):
        network = build_model(cfg)
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def audit(state: State, model: VMBModel) -> Audit:
    """Compare the keys, shapes and anchors of a VMB state dict with ``model``.

    As in the original, each parameter gets the key that is the longest suffix of its own name,
    where suffixes begin at a dot. A key may begin with ``module.``, or have any prefix before a
    parameter's whole name.
    """
    result = Audit(parameter_map(model), detectron2_shapes(model))
    fitting = _assign(state, result)
    fitting |= _compare_twins(state, result)
    _assign_rest(state, fitting, anchors_of(model), result)
    for parameter in result.parameters:
        if parameter.vmb not in result.sources:
            continue
        key = result.sources[parameter.vmb]
        expected = parameter.vmb_shape(result.d2_shapes[parameter.d2])
        if tuple(state[key].shape) != expected:
            result.problems.append(f"shape of {key}: {tuple(state[key].shape)}, not {expected}")
        elif parameter.layout is Layout.VARIANCE and not bool((state[key] > 0).all()):
            result.problems.append(f"values of {key}: a variance that is not positive")
    return result


def _assign(state: State, result: Audit) -> set[str]:
    """Find the key of each parameter. Returns all keys that fit one, ambiguous ones included."""
    names = {p.vmb for p in result.parameters}
    keys_of: dict[str, list[str]] = {}  # by their name without a prefix
    for key in state:
        bare = re.sub(r"^(module\.)+", "", key)
        name = next((suffix for suffix in _suffixes(key) if suffix in names), bare)
        keys_of.setdefault(name, []).append(key)
    names_of: dict[str, list[str]] = {}  # the parameters that a name is the longest suffix of
    missing = []
    for name in (p.vmb for p in result.parameters):
        suffix = next((suffix for suffix in _suffixes(name) if suffix in keys_of), None)
        if suffix is None:
            missing.append(name)
        else:
            names_of.setdefault(suffix, []).append(name)
    statistics = {p.vmb for p in result.parameters if _leaf(p.vmb) in ASSUMED}
    if statistics <= set(missing):
        result.assumed = True
        missing = [name for name in missing if name not in statistics]
    result.problems += [f"missing: {name}" for name in missing]
    for suffix, parameters in names_of.items():
        keys = keys_of[suffix]
        if len(keys) == len(parameters) == 1:
            result.sources[parameters[0]] = keys[0]
        else:
            both = f"{' and '.join(keys[:3])} for {' and '.join(parameters[:3])}"
            result.problems.append(f"ambiguous: {both}")
    return {key for suffix in names_of for key in keys_of[suffix]}


def _suffixes(name: str) -> Iterator[str]:
    """The suffixes of a name that begin at a dot, the longest (the name itself) first."""
    parts = name.split(".")
    return (".".join(parts[i:]) for i in range(len(parts)))


def _compare_twins(state: State, result: Audit) -> set[str]:
    """The keys under which the file has modules a second time; their values have to be the same."""
    twins = set()
    for prefix, other in TWINS.items():
        for key in (key for key in state if key.startswith(prefix)):
            first = other + key.removeprefix(prefix)
            if first not in state:
                continue
            twins.add(key)
            result.ignored[key] = f"the same as {other}*"
            if not torch.equal(state[key], state[first]):
                result.problems.append(f"values of {key}: others than those of {first}")
    return twins


def _assign_rest(state: State, fitting: set[str], anchors: list[Tensor], result: Audit) -> None:
    """Divide the keys without a parameter into anchors, ignored and unknown ones."""
    modules = {key.rpartition(".")[0] for key in fitting}
    first_names = {key.partition(".")[0] for key in fitting}
    for key in (key for key in state if key not in fitting):
        if level := ANCHORS.fullmatch(key):
            result.ignored[key] = "computed, and found the same"
            ours = anchors[int(level[1])] if int(level[1]) < len(anchors) else None
            if ours is None or not _same_anchors(state[key], ours):
                result.problems.append(f"values of {key}: not the anchors of this model's config")
        elif reason := next((r for pattern, r in IGNORED.items() if pattern.fullmatch(key)), None):
            result.ignored[key] = reason
        elif key.rpartition(".")[0] not in modules and key.partition(".")[0] in first_names:
            result.problems.append(f"unknown: {key}, of a layer that the model doesn't have")
        else:
            result.ignored[key] = LEFT_OVER


def _same_anchors(found: Tensor, ours: Tensor) -> bool:
    """Whether anchors are equal within the rounding of the dtype in which they are stored."""
    if found.shape != ours.shape or not found.is_floating_point():
        return False
    return torch.allclose(found.float(), ours, rtol=torch.finfo(found.dtype).eps, atol=0)


def _leaf(name: str) -> str:
    return name.rpartition(".")[2]


def to_d2(state: State, audited: Audit) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Convert an audited VMB state dict that has no problems.

    Returns:
        The Detectron2 state dict, float32, and the background's rows that Detectron2 doesn't have,
        of boxes and of two-way objectness, by their Detectron2 name.
    """
    converted: dict[str, Tensor] = {}
    dropped: dict[str, Tensor] = {}
    for parameter in audited.parameters:
        if parameter.vmb in audited.sources:
            tensor = state[audited.sources[parameter.vmb]].float()
        else:
            shape = audited.d2_shapes[parameter.d2]
            tensor = torch.full(shape, ASSUMED[_leaf(parameter.vmb)])
        if parameter.layout in (Layout.CLASS_ROWS, Layout.ATTRIBUTE_ROWS):
            tensor = tensor.roll(-1, dims=0)
        elif parameter.layout is Layout.BOX_ROWS:
            dropped[parameter.d2] = tensor[:BOX_DIM].clone()
            tensor = tensor[BOX_DIM:]
        elif parameter.layout is Layout.OBJECTNESS:
            background, objects = tensor.chunk(2)
            dropped[parameter.d2] = background.clone()
            tensor = objects - background
        elif parameter.layout is Layout.VARIANCE:
            weight = parameter.d2.replace("running_var", "weight")
            converted[weight], tensor = batch_norm_to_d2(converted[weight], tensor)
        converted[parameter.d2] = tensor.clone(memory_format=torch.contiguous_format)
    return converted, dropped


def batch_norm_to_d2(weight: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """Weight and variance (C,) for a batch norm that adds an epsilon to the variance.

    The result is the variance minus epsilon. Where adding epsilon to it would not restore the
    variance up to rounding, because that is far below epsilon, the channel gets the variance 1 and
    its weight is divided by the standard deviation, which is the same function.
    """
    stored = variance - BATCH_NORM_EPS
    lost = ((stored + BATCH_NORM_EPS) - variance).abs() > 1e-6 * variance
    unit = torch.ones_like(variance) - BATCH_NORM_EPS
    scaled = (weight.double() * variance.double().rsqrt()).to(weight.dtype)
    return torch.where(lost, scaled, weight), torch.where(lost, unit, stored)


def to_vmb(
    state: State, model: VMBModel, dropped: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """The reverse: a state dict in the original's layout from a Detectron2 one.

    Anchors that the conversion compared are computed. Twins are not written. ``dropped`` is the
    second value of :func:`to_d2`; without it those rows are zero.
    """
    parameters = parameter_map(model)
    differing = state.keys() ^ {p.d2 for p in parameters}
    if differing:
        raise CheckpointError(f"not this model's Detectron2 keys: {', '.join(sorted(differing))}")
    result = {}
    for parameter in parameters:
        tensor = state[parameter.d2]
        if parameter.layout in (Layout.CLASS_ROWS, Layout.ATTRIBUTE_ROWS):
            tensor = tensor.roll(1, dims=0)
        elif parameter.layout in (Layout.BOX_ROWS, Layout.OBJECTNESS):
            rows = BOX_DIM if parameter.layout is Layout.BOX_ROWS else len(tensor)
            background = (dropped or {}).get(parameter.d2)
            if background is None:
                background = tensor.new_zeros((rows, *tensor.shape[1:]))
            if parameter.layout is Layout.OBJECTNESS:
                tensor = tensor + background
            tensor = torch.cat([background, tensor])
        elif parameter.layout is Layout.VARIANCE:
            tensor = tensor + BATCH_NORM_EPS
        result[parameter.vmb] = tensor.clone()
    for level, anchors in enumerate(anchors_of(model)):
        result[f"rpn.anchor_generator.cell_anchors.{level}"] = anchors
    return result


def anchors_of(model: VMBModel) -> list[Tensor]:
    """The inclusive cell anchors of each level; none where they are the checkpoint's."""
    if model.stored_anchors:
        return []
    sizes = [(size,) for size in model.anchor_sizes] if model.fpn else [model.anchor_sizes]
    return [
        cell_anchors(stride, level_sizes, model.aspect_ratios)
        for stride, level_sizes in zip(model.anchor_strides, sizes, strict=True)
    ]
