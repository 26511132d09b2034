"""From a model's name, or a VMB yaml, to a Detectron2 config."""

from __future__ import annotations

from pathlib import Path

from ..errors import ConfigError
from .detectron2_config import PIXEL_MEAN_BGR, add_vmb_config, to_detectron2
from .vmb_model import VMBModel
from .vmb_yaml import (
    VMBYaml,
    ignored_lines,
    parse_vmb_config,
    read_vmb_model,
    read_vmb_yaml,
)

__all__ = [
    "MODEL_NAMES",
    "PIXEL_MEAN_BGR",
    "VMBModel",
    "VMBYaml",
    "add_vmb_config",
    "get_cfg",
    "ignored_lines",
    "named_model",
    "parse_vmb_config",
    "read_vmb_model",
    "read_vmb_yaml",
    "to_detectron2",
]

MODEL_NAMES = ("x152", "x101", "r101_c4", "x152_c4")
_MODELS = Path(__file__).parent / "models"


def named_model(name: str) -> VMBModel:
    """One of the models in :data:`MODEL_NAMES`. Raises ConfigError for any other name."""
    if name not in MODEL_NAMES:
        raise ConfigError(f"model {name!r} is unknown; valid names: {', '.join(MODEL_NAMES)}")
    return read_vmb_yaml(_MODELS / f"{name}.yaml").model


def get_cfg(model: str | Path | VMBModel):
    """The Detectron2 config of a model.

    Args:
        model: a name in :data:`MODEL_NAMES`, the path of a VMB yaml, or a :class:`VMBModel`.

    Returns:
        A ``CfgNode`` for ``detectron2.modeling.build_model``, with ``MODEL.DEVICE`` "cpu".

    Raises:
        ConfigError: see :func:`named_model` and :func:`read_vmb_yaml`.
    """
    if not isinstance(model, VMBModel):
        is_path = isinstance(model, Path) or str(model).endswith((".yaml", ".yml"))
        model = read_vmb_yaml(model).model if is_path else named_model(model)
    return to_detectron2(model)
