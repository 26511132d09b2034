"""The goldens' models, by the names of their listings in ``state_dicts/``."""

import functools
import json
from pathlib import Path

import torch

from vmb_d2.config import VMBModel, named_model, read_vmb_model, to_detectron2
from vmb_d2.modeling import VMBRCNN
from weights_conversion import state_dict

from .synthetic_weights import torch_state_dict

FULL_VMB = ("x152", "x101", "r101_c4", "x152_c4")
# listing -> the model's name
FULL = {name: name for name in (*FULL_VMB, "vinvl", "frcnn_vg")} | {"bua_caffe_r101": "bua"}
TINY_VMB = ("tiny_x152_fpn", "tiny_r101_c4", "tiny_x152_c4")
TINY_LINEAGES = ("tiny_vinvl", "tiny_frcnn_vg", "tiny_bua_caffe")
TINY = (*TINY_VMB, *TINY_LINEAGES)

_FOLDER = Path(__file__).parent


def yaml_path(name: str) -> Path:
    """The original's yaml of a tiny model."""
    return _FOLDER / "configs" / f"{name}.yaml"


def description(name: str) -> VMBModel:
    """What a model is."""
    return named_model(FULL[name]) if name in FULL else read_vmb_model(yaml_path(name))


@functools.cache
def listing(name: str) -> dict:
    """Names, shapes and anchors of the original's state dict."""
    return json.loads((_FOLDER / "state_dicts" / f"{name}.json").read_text())


def vmb_state(name: str, seed: int = 0) -> dict[str, torch.Tensor]:
    """A state dict in the original's layout, with the goldens' weights where ``seed`` is 0."""
    return torch_state_dict(listing(name), seed)


def network(name: str, device: torch.device) -> VMBRCNN:
    """A model with the goldens' weights in evaluation mode, made without a file."""
    described = description(name)
    state = vmb_state(name)
    converted, _ = state_dict.to_d2(state, state_dict.audit(state, described))
    with torch.device(device):  # that initial values are made there, which takes less time
        model = VMBRCNN(to_detectron2(described)).eval()
    model.load_state_dict(converted)
    return model.to(device)
