"""State dicts between VMB's layout and Detectron2's, with every key accounted for."""

from __future__ import annotations

import vmb_d2.modeling  # noqa: F401  (prepares detectron2 for the imports below)

# isort: split

from collections.abc import Iterator, Mapping
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

LEFT_OVER = "left over: the model has no such parameter, the original ignores them too"

# Statistics of a batch norm -> their values where a state dict has none, as Caffe2's have none.
ASSUMED = {"running_mean": 0.0, "running_var": 1.0}


@dataclass
class Audit:
    """Every key of a VMB state dict, held against a model.

    Attributes:
        sources: the key of each parameter found, by the parameter's name in VMB.
        assumed: parameters that the state dict has nowhere, and that get the value in ASSUMED.
        ignored: keys that are passed over -> why.
        anchors: keys of anchors, which are computed.
        missing: names in VMB of parameters that no key fits.
        unknown: keys of a part of the network that the model lacks.
        ambiguous, wrong: in words.
    """

    parameters: list[Parameter]
    d2_shapes: dict[str, tuple[int, ...]]
    sources: dict[str, str] = field(default_factory=dict)
    assumed: list[str] = field(default_factory=list)
    ignored: dict[str, str] = field(default_factory=dict)
    anchors: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    ambiguous: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def problems(self) -> list[str]:
        """A line for each key that stands in the way of a conversion."""
        return [
            *(f"missing: {key}" for key in self.missing),
            *(f"unknown: {key}" for key in self.unknown),
            *(f"ambiguous: {words}" for words in self.ambiguous),
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
    """Hold the keys, shapes and anchors of a VMB state dict against ``model``.

    Keys find their parameters as in the original: each parameter takes the key that is the longest
    ending of its own name, at a dot. A key may have ``module.`` before its name, or any prefix
    before a parameter's whole name.
    """
    result = Audit(parameter_map(model), detectron2_shapes(model))
    unmapped = result.d2_shapes.keys() ^ {p.d2 for p in result.parameters}
    if unmapped:  # a defect of mapping.py, or a detectron2 that names its modules otherwise
        raise CheckpointError(f"no mapping for these parameters: {', '.join(sorted(unmapped))}")
    _assign_rest(state, _assign(state, result), anchors_of(model), result)
    _assume_statistics(state, result)
    for parameter in result.parameters:
        if parameter.vmb not in result.sources:
            continue
        key = result.sources[parameter.vmb]
        expected = parameter.vmb_shape(result.d2_shapes[parameter.d2])
        if tuple(state[key].shape) != expected:
            result.wrong.append(f"shape of {key}: {tuple(state[key].shape)}, not {expected}")
        elif parameter.layout is Layout.VARIANCE and not bool((state[key] > 0).all()):
            result.wrong.append(f"values of {key}: a variance that is not positive")
    return result


def _assign(state: State, result: Audit) -> set[str]:
    """Find the key of each parameter. Returns all keys that fit one, ambiguous ones too."""
    names = {p.vmb: None for p in result.parameters}
    keys_of: dict[str, list[str]] = {}  # by their name without a prefix
    for key in state:
        bare = key
        while bare.startswith("module."):
            bare = bare.removeprefix("module.")
        name = next((ending for ending in _endings(key) if ending in names), bare)
        keys_of.setdefault(name, []).append(key)
    fitted: dict[str, list[str]] = {}
    for name in names:
        ending = next((ending for ending in _endings(name) if ending in keys_of), None)
        if ending is None:
            result.missing.append(name)
        else:
            fitted.setdefault(ending, []).append(name)
    for ending, parameters in fitted.items():
        if len(keys_of[ending]) == len(parameters) == 1:
            result.sources[parameters[0]] = keys_of[ending][0]
        else:
            result.ambiguous.append(f"{_some(keys_of[ending])} for {_some(parameters)}")
    return {key for ending in fitted for key in keys_of[ending]}


def _endings(name: str) -> Iterator[str]:
    """The name, and what is left of it after each dot, the longest first."""
    yield name
    while "." in name:
        name = name.partition(".")[2]
        yield name


def _some(names: list[str]) -> str:
    return " and ".join(names if len(names) <= 4 else [*names[:3], f"{len(names) - 3} more"])


def _assign_rest(state: State, fitting: set[str], anchors: list[Tensor], result: Audit) -> None:
    """Sort the keys that no parameter takes into anchors, ignored and unknown."""
    modules = {key.rpartition(".")[0] for key in fitting}
    beginnings = {key.partition(".")[0] for key in fitting}
    parts = {p.vmb.partition(".")[0] for p in result.parameters}

    def is_lacking(key: str) -> bool:
        """Whether its module is none of the model's, but beside them."""
        module, names = key.rpartition(".")[0], key.split(".")
        return module not in modules and (names[0] in beginnings or not parts.isdisjoint(names))

    for key in (key for key in state if key not in fitting):
        if level := ANCHORS.fullmatch(key):
            result.anchors.append(key)
            ours = anchors[int(level[1])] if int(level[1]) < len(anchors) else None
            if ours is None or not _same_anchors(state[key], ours):
                result.wrong.append(f"values of {key}: not the anchors of this model's config")
        elif reason := next((r for pattern, r in IGNORED.items() if pattern.fullmatch(key)), None):
            result.ignored[key] = reason
        elif is_lacking(key):
            result.unknown.append(key)
        else:
            result.ignored[key] = LEFT_OVER


def _same_anchors(found: Tensor, ours: Tensor) -> bool:
    """Whether anchors are the same within the rounding of the type in which they are stored."""
    if found.shape != ours.shape or not found.is_floating_point():
        return False
    return torch.allclose(found.float(), ours, rtol=torch.finfo(found.dtype).eps, atol=0)


def _assume_statistics(state: State, result: Audit) -> None:
    """Running means and variances may be absent, all of them together."""
    statistics = [p.vmb for p in result.parameters if _leaf(p.vmb) in ASSUMED]
    absent = not any(_leaf(key) in ASSUMED for key in state)
    if result.sources and absent and set(statistics) <= set(result.missing):
        result.assumed = statistics
        result.missing = [name for name in result.missing if name not in set(statistics)]


def _leaf(name: str) -> str:
    return name.rpartition(".")[2]


def to_d2(state: State, audited: Audit) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Convert an audited VMB state dict that has no problems.

    Returns:
        The Detectron2 state dict, float32, and the rows of VMB that it has no place for, by their
        Detectron2 name.
    """
    converted, dropped = {}, {}
    for parameter in audited.parameters:
        if parameter.vmb in audited.sources:
            tensor = state[audited.sources[parameter.vmb]].float()
        else:
            shape = audited.d2_shapes[parameter.d2]
            tensor = torch.full(shape, ASSUMED[_leaf(parameter.vmb)])
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
