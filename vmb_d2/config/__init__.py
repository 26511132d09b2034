"""From a model's name, or the original's yaml, to a Detectron2 config."""

from __future__ import annotations

from pathlib import Path

from ..errors import ConfigError
from .detectron2_config import to_detectron2
from .vmb_model import VMBModel
from .vmb_yaml import parse_vmb_config, read_vmb_model

__all__ = [
    "ALIASES",
    "MODEL_NAMES",
    "RELEASED_WEIGHTS",
    "RELEASED_YAML",
    "VMBModel",
    "canonical_name",
    "describe_model",
    "get_cfg",
    "named_model",
    "parse_vmb_config",
    "read_vmb_model",
    "to_detectron2",
]

MODEL_NAMES = ("x152", "x101", "r101_c4", "x152_c4", "vinvl", "frcnn_vg", "bua")
ALIASES = {"X-152": "x152", "X-101": "x101"}  # MMF's names of the same models
_RELEASES = "https://dl.fbaipublicfiles.com/pythia/detectron_model"
RELEASED_WEIGHTS = {
    "x152": f"{_RELEASES}/detectron_model_x152.pth",
    "x101": f"{_RELEASES}/detectron_model.pth",
    "frcnn_vg": "unc-nlp/frcnn-vg-finetuned",  # of Hugging Face's hub, with its yaml
}
RELEASED_YAML = {
    "x152": f"{_RELEASES}/detectron_model_x152.yaml",
    "x101": f"{_RELEASES}/detectron_model.yaml",
}
_MODELS = Path(__file__).parent / "models"


def canonical_name(name: str) -> str:
    """The name in :data:`MODEL_NAMES` for one of MMF's names; any other name unchanged."""
    return ALIASES.get(name, name)


def named_model(name: str) -> VMBModel:
    """The description of a model by its name in :data:`MODEL_NAMES`, or MMF's.

    Raises ConfigError for any other name.
    """
    name = canonical_name(name)
    if name not in MODEL_NAMES:
        raise ConfigError(field="model_name", value=name, valid=(*MODEL_NAMES, *ALIASES))
    return read_vmb_model(_MODELS / f"{name}.yaml")


def describe_model(model: str | Path | VMBModel) -> VMBModel:
    """The description of a model.

    Args:
        model: a name in :data:`MODEL_NAMES` or MMF's, the path of a VMB yaml, or a description,
            which is returned unchanged.

    Raises:
        ConfigError: see :func:`named_model` and :func:`read_vmb_model`.
    """
    if isinstance(model, VMBModel):
        return model
    if isinstance(model, Path) or str(model).endswith((".yaml", ".yml")):
        return read_vmb_model(model)
    return named_model(model)


def get_cfg(model: str | Path | VMBModel):
    """The Detectron2 config of a model.

    Args:
        model: see :func:`describe_model`.

    Returns:
        A ``CfgNode`` for ``detectron2.modeling.build_model``, with ``MODEL.DEVICE`` "cpu".
    """
    return to_detectron2(describe_model(model))
