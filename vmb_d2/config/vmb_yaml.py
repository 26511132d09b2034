"""Reads a VMB yaml (``detectron_model.yaml``) into a :class:`VMBModel`.

Every key either becomes a field of the model, is supported at one value only, has no effect on
region features, or is an error that names it.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fvcore.common.config import CfgNode

from ..errors import ConfigError
from .lineages import lineage_of
from .vmb_keys import BACKBONE_CHANNEL_KEYS, STRUCTURE_KEYS
from .vmb_model import BLOCKS_PER_STAGE, C4_STRIDE, FPN_STRIDES, VMBModel


def read_vmb_model(path: str | Path) -> VMBModel:
    """Read a VMB yaml file, and the one that it names as ``_BASE_``, whose keys it overrides.

    Raises:
        ConfigError: the file can't be read, or keys are unknown, unsupported at their values, or
            contradict others. The message starts with the file's path and names all such keys.
    """
    try:
        tree = CfgNode.load_yaml_with_base(str(path))
    except Exception as error:  # of opening, decoding, parsing, merging; RecursionError in a circle
        raise ConfigError(f"{path}: can't be read: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: no VMB configuration (expected sections such as MODEL)")
    try:
        return parse_vmb_config(tree)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def parse_vmb_config(tree: dict) -> VMBModel:
    """Translate the nested dict of a yaml. Raises ConfigError, as :func:`read_vmb_model`."""
    lineage = lineage_of(tree)
    keys = dict(_flatten(tree))
    fields: dict[str, Any] = {}
    problems: list[str] = []
    unknown: list[str] = []
    for key, value in keys.items():
        if key in lineage.fields:
            name = lineage.fields[key]
            try:
                value = _typed(key, value, _field(lineage.base, name))
            except ConfigError as error:
                problems.append(str(error))
                continue
            if fields.setdefault(name, value) != value:
                problems.append(f"{' and '.join(BACKBONE_CHANNEL_KEYS)} contradict each other")
        elif key in lineage.only_at:
            if value not in lineage.only_at[key]:
                only = " or ".join(map(repr, lineage.only_at[key]))
                problems.append(f"{key}: {value!r} is not supported, only {only}")
        elif key not in STRUCTURE_KEYS and not re.fullmatch("|".join(lineage.without_effect), key):
            unknown.append(key)
    if not lineage.base.stored_anchors:
        fields.update(_architecture(keys, problems))
    model = lineage.model(fields)
    if not problems:
        problems.extend(_contradictions(model))
    if unknown and not lineage.others_ignored:
        problems.append(
            f"{', '.join(unknown)}: not a key that VMB-D2 knows, so it may change the result; "
            "remove it from the yaml if it has no part in inference"
        )
    if problems:
        raise ConfigError("; ".join(problems))
    return model


def _field(model: VMBModel, name: str) -> Any:
    """The value of a field, or of one of its fields: ``input.mean``."""
    return functools.reduce(getattr, name.split("."), model)


def _flatten(tree: dict, prefix: str = ""):
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", _literal(value)


def _literal(value):
    """A yaml value as yacs reads it: Python literals in strings are evaluated, lists are tuples."""
    if isinstance(value, str):
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            return value
    return tuple(_literal(v) for v in value) if isinstance(value, (list, tuple)) else value


def _typed(key: str, value, default):
    """``value`` converted to the type of ``default``. Raises ConfigError where it can't be."""
    if isinstance(default, bool):
        if isinstance(value, bool):
            return value
    elif isinstance(default, tuple):
        values = value if isinstance(value, tuple) else (value,)
        if len(values) == 1 and isinstance(values[0], tuple):  # Detectron2's, of one level
            (values,) = values
        values = tuple(v[0] if isinstance(v, tuple) and len(v) == 1 else v for v in values)
        if values and all(_is_number(v) for v in values):
            return values
    elif _is_number(value) and (isinstance(default, float) or float(value).is_integer()):
        return type(default)(value)
    kind = "numbers" if isinstance(default, tuple) else type(default).__name__
    raise ConfigError(f"{key}: {value!r} is not of the type expected ({kind})")


def _is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _architecture(keys: dict, problems: list[str]) -> dict:
    """Depth and kind of the model. Keys that contradict the backbone are added to ``problems``."""
    body = keys.get("MODEL.BACKBONE.CONV_BODY", "R-50-C4")
    match = re.fullmatch(r"R-(\d+)-(FPN|C4)", str(body))
    if not match or int(match[1]) not in BLOCKS_PER_STAGE:
        bodies = ", ".join(f"R-{d}-{kind}" for kind in ("FPN", "C4") for d in BLOCKS_PER_STAGE)
        problems.append(f"MODEL.BACKBONE.CONV_BODY: {body!r} is not supported, only {bodies}")
        return {}
    fpn = match[2] == "FPN"
    goes_with = {
        "MODEL.RPN.USE_FPN": (False, fpn),
        "MODEL.ROI_HEADS.USE_FPN": (False, fpn),
        "MODEL.ROI_BOX_HEAD.FEATURE_EXTRACTOR": (
            "ResNet50Conv5ROIFeatureExtractor",
            "FPN2MLPFeatureExtractor" if fpn else "ResNet50Conv5ROIFeatureExtractor",
        ),
        "MODEL.ROI_BOX_HEAD.PREDICTOR": (
            "FastRCNNPredictor",
            "FPNPredictor" if fpn else "FastRCNNPredictor",
        ),
    }
    for key, (default, needed) in goes_with.items():
        value = keys.get(key, default)
        if value != needed:
            problems.append(f"{key}: {value!r} is not supported with {body}, only {needed!r}")
    return {"depth": int(match[1]), "fpn": fpn}


def _contradictions(model: VMBModel) -> Iterator[str]:
    """A line for each value of a model that doesn't fit its backbone."""
    strides = FPN_STRIDES if model.fpn else (C4_STRIDE,)
    if model.anchor_strides != strides:
        yield (
            f"MODEL.RPN.ANCHOR_STRIDE: {model.anchor_strides} doesn't fit the backbone's {strides}"
        )
    if model.fpn and len(model.anchor_sizes) != len(strides):
        yield f"MODEL.RPN.ANCHOR_SIZES: {len(model.anchor_sizes)} sizes for {len(strides)} levels"
    scales = tuple(1.0 / s for s in (FPN_STRIDES[:4] if model.fpn else strides))
    if model.pooler_scales != scales:
        yield (
            f"MODEL.ROI_BOX_HEAD.POOLER_SCALES: {model.pooler_scales} is not supported, "
            f"only {scales} with this backbone"
        )
