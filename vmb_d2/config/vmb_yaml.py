"""Reads a VMB yaml (``detectron_model.yaml``) into a :class:`VMBModel`.

Every key either becomes a field of the model, is supported at one value only, has no effect on
region features for a stated reason, or is an error that names it.
"""

from __future__ import annotations

import ast
import logging
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ..errors import ConfigError
from .vmb_keys import (
    BACKBONE_CHANNEL_KEYS,
    FIELDS,
    SMALLEST,
    STRUCTURE_KEYS,
    SUPPORTED_ONLY_AT,
    WITHOUT_EFFECT,
)
from .vmb_model import BLOCKS_PER_STAGE, C4_STRIDE, FPN_STRIDES, VMBModel

BASE = "_BASE_"  # the key of the file that a yaml builds on

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class VMBYaml:
    """The model of a yaml, and ``key: reason`` for each key that was ignored."""

    model: VMBModel
    ignored: dict[str, str]


def read_vmb_yaml(path: str | Path) -> VMBYaml:
    """Read a VMB yaml file, and the one that it names as ``_BASE_``, whose keys it overrides.

    Raises:
        ConfigError: the file can't be read, or keys are unknown, unsupported at their values, or
            contradict others. The message starts with the file's path and names all such keys.
    """
    tree = _read_tree(Path(path), ())
    try:
        return parse_vmb_config(tree)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _read_tree(path: Path, above: tuple[Path, ...]) -> dict:
    """The nested dict of a yaml, merged over that of its base.

    ``above``: the files that name this one as their base, directly or not.
    """
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: can't be read: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: no valid yaml: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: no VMB configuration (expected sections such as MODEL)")
    if BASE not in tree:
        return tree
    base = tree.pop(BASE)
    if not isinstance(base, str) or "://" in base:
        raise ConfigError(f"{path}: {BASE}: {base!r} is not the path of one yaml file")
    above = (*above, path)
    base = path.parent / os.path.expanduser(base)
    if os.path.realpath(base) in map(os.path.realpath, above):
        circle = " -> ".join(map(str, (*above, base)))
        raise ConfigError(f"{path}: {BASE} leads in a circle: {circle}")
    return _merged(_read_tree(base, above), tree, f"{path}: ")


def _merged(base: dict, over: dict, prefix: str) -> dict:
    """``base`` updated by ``over``, section by section. ``prefix`` precedes keys in errors."""
    result = dict(base)
    for name, value in over.items():
        key = f"{prefix}{name}"
        if name in base and isinstance(base[name], dict) != isinstance(value, dict):
            raise ConfigError(f"{key}: a section in one of the files, a value in the other")
        merges = isinstance(value, dict) and name in base
        result[name] = _merged(base[name], value, f"{key}.") if merges else value
    return result


def read_vmb_model(path: str | Path) -> VMBModel:
    """The model of :func:`read_vmb_yaml`; the ignored keys are logged."""
    description = read_vmb_yaml(path)
    for line in ignored_lines(description.ignored):
        logger.info("%s: %s", path, line)
    return description.model


def ignored_lines(reasons: Mapping[str, str]) -> list[str]:
    """A line for each reason in ``{key: reason}``, with the keys ignored for it."""
    keys_of: dict[str, list[str]] = {}
    for key, reason in reasons.items():
        keys_of.setdefault(reason, []).append(key)
    return [f"ignored ({reason}): {', '.join(keys)}" for reason, keys in keys_of.items()]


def parse_vmb_config(tree: dict) -> VMBYaml:
    """Translate the nested dict of a VMB yaml. Raises ConfigError, as :func:`read_vmb_yaml`."""
    keys = dict(_flatten(tree))
    fields: dict[str, Any] = {}
    ignored: dict[str, str] = {}
    problems: list[str] = []
    unsupported: list[str] = []
    unknown: list[str] = []
    for key, value in keys.items():
        if key in STRUCTURE_KEYS:
            continue
        if key in FIELDS:
            try:
                value = _typed(key, value, getattr(VMBModel, FIELDS[key]))
            except ConfigError as error:
                problems.append(str(error))
                continue
            if fields.setdefault(FIELDS[key], value) != value:
                problems.append(f"{' and '.join(BACKBONE_CHANNEL_KEYS)} contradict each other")
        elif key in SUPPORTED_ONLY_AT:
            if value not in SUPPORTED_ONLY_AT[key]:
                only = " or ".join(map(repr, SUPPORTED_ONLY_AT[key]))
                unsupported.append(f"{key}: {value!r} is not supported, only {only}")
        elif reason := _reason_without_effect(key):
            ignored[key] = reason
        else:
            unknown.append(key)
    architecture = _architecture(keys, problems)
    if not problems:
        model = VMBModel(**architecture, **fields)
        problems.extend(_contradictions(model))
    problems += unsupported
    if unknown:
        problems.append(
            f"{', '.join(unknown)}: not a key that VMB-D2 knows, so it may change the result; "
            "remove it from the yaml if it has no part in inference"
        )
    if problems:
        raise ConfigError("; ".join(problems))
    return VMBYaml(model, ignored)


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
        values = tuple(v[0] if isinstance(v, tuple) and len(v) == 1 else v for v in values)
        if values and all(_is_number(v) for v in values):
            return values
    elif _is_number(value) and (isinstance(default, float) or float(value).is_integer()):
        return type(default)(value)
    kind = "numbers" if isinstance(default, tuple) else type(default).__name__
    raise ConfigError(f"{key}: {value!r} is not of the type expected ({kind})")


def _is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _reason_without_effect(key: str) -> str | None:
    return next((r for pattern, r in WITHOUT_EFFECT.items() if re.fullmatch(pattern, key)), None)


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
    """A line for each value of a model that contradicts another or is out of range."""
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
    channels = model.res2_out_channels * 4
    if not model.fpn and model.backbone_out_channels != channels:
        yield (
            f"{BACKBONE_CHANNEL_KEYS[0]}: {model.backbone_out_channels} doesn't fit a C4 backbone "
            f"whose last map has {channels} channels (4 x MODEL.RESNETS.RES2_OUT_CHANNELS)"
        )
    if len(model.bbox_reg_weights) != 4:
        yield "MODEL.ROI_HEADS.BBOX_REG_WEIGHTS: four numbers expected"
    for key, field in FIELDS.items():
        value = getattr(model, field)
        smallest = SMALLEST.get(field, 1)
        if isinstance(value, (int, float)) and value < smallest:
            yield f"{key}: {value} is too small (at least {smallest})"
