"""Conversion of checkpoints: nothing lost, nothing guessed, nothing half written."""

import collections
import dataclasses
import hashlib

import pytest
import support
import torch
import torch.nn.functional as F
from support import TINY_FPN as TINY
from support import saved, shapes_only

from vmb_d2 import get_cfg
from vmb_d2.version import __version__
from weights_conversion import state_dict
from weights_conversion.convert import convert_checkpoint, revert_checkpoint


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("name", support.TINY_MODELS + support.TINY_LINEAGES)
def test_round_trip(tmp_path, name):
    """Exact, but for the rounding of two-way objectness; what a file has twice comes back once."""
    source, there, back = support.vmb_checkpoint(name), tmp_path / "d2.pth", tmp_path / "vmb.pth"
    convert_checkpoint(source, there, support.description(name))
    revert_checkpoint(there, back)
    before, after = (torch.load(p, weights_only=True)["model"] for p in (source, back))
    twins = tuple(support.listing(name).get("shared", {}))
    before = {key: value for key, value in before.items() if not key.startswith(twins)}
    if name == "tiny_bua_caffe":
        for leaf in ("weight", "bias"):
            key = f"proposal_generator.rpn_head.objectness_logits.{leaf}"
            found, expected = after.pop(key), before.pop(key)
            assert torch.allclose(found, expected, rtol=0, atol=1e-7)
    assert same(before, after)


@pytest.mark.parametrize(
    "name",
    (*support.FULL_MODELS, *support.FULL_LINEAGES, *support.TINY_MODELS, *support.TINY_LINEAGES),
)
def test_every_key_of_the_original_is_mapped(name):
    """On shapes alone, for the models too large to convert in passing."""
    state = shapes_only(name)
    audited = state_dict.audit(state, support.description(name))
    assert audited.problems == []
    assert {p.vmb for p in audited.parameters} == audited.sources.keys()
    assert {p.d2 for p in audited.parameters} == audited.d2_shapes.keys()
    assert {*audited.sources.values(), *audited.ignored} == state.keys()
    assert len(audited.parameters) + len(audited.ignored) == len(state)


@pytest.mark.parametrize("name", ["x152", "r101_c4"])
def test_every_parameter_of_fifty_layers_is_mapped(name):
    """Which no listing of an original has, with an FPN and without."""
    model = dataclasses.replace(support.description(name), depth=50)
    audited = state_dict.audit({}, model)
    assert {p.d2 for p in audited.parameters} == audited.d2_shapes.keys()


@pytest.mark.parametrize("variance", [1e-12, 4e-6, 1e-5, 1.1e-5, 7e-5, 0.3, 2e4])
def test_batch_norm_keeps_its_function(variance):
    """Against the original's formula, without epsilon, for variances of any size."""
    generator = torch.Generator().manual_seed(0)
    weight, bias, shift = torch.randn(3, 32, generator=generator)
    var = variance * (0.5 + torch.rand(32, generator=generator))
    mean = shift * var.sqrt()
    x = torch.randn(500, 32, 1, 1, generator=generator) * var.sqrt()[:, None, None]
    new_weight, new_var = state_dict.batch_norm_to_d2(weight, var)
    result = F.batch_norm(x, mean, new_var, new_weight, bias, eps=state_dict.BATCH_NORM_EPS)
    x64, mean64, std64 = (t.double() for t in (x[:, :, 0, 0], mean, var.double().sqrt()))
    expected = (x64 - mean64) / std64 * weight.double() + bias.double()
    assert torch.allclose(result[:, :, 0, 0].double(), expected, rtol=0, atol=1e-5)
    if variance > state_dict.BATCH_NORM_EPS:
        assert torch.equal(new_weight, weight)
        assert torch.allclose(new_var + state_dict.BATCH_NORM_EPS, var, rtol=1.2e-7, atol=0)


def test_metadata_and_safe_loading(tmp_path, model):
    target = tmp_path / "out.pth"
    source = support.vmb_checkpoint(TINY)
    convert_checkpoint(source, target, model)
    content = torch.load(target, weights_only=True)
    origin = content["vmb_d2"]
    assert origin["source_sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
    assert origin["source_config"] == model.to_dict()
    assert origin["converter_version"] == __version__
    assert origin["source_name"] == source.name


def wrapped(state):
    prefixed = {f"module.{k}": v for k, v in state.items()}
    return {
        "training state": support.with_training_state(state),
        "Lightning": {"state_dict": {f"model.{k}": v for k, v in state.items()}, "epoch": 3},
        "bare with module prefix": collections.OrderedDict(prefixed),
        "half precision": {"model": {k: v.half().float().half() for k, v in state.items()}},
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layout", "zipped"), [*((layout, True) for layout in wrapped({})), ("training state", False)]
)
def test_wrapped_layouts(tmp_path, state, model, layout, zipped):
    source = saved(tmp_path, wrapped(state)[layout], _use_new_zipfile_serialization=zipped)
    convert_checkpoint(source, tmp_path / "out.pth", model)
    converted = torch.load(tmp_path / "out.pth", weights_only=True)["model"]
    if layout == "half precision":
        state = {k: v.half().float() for k, v in state.items()}
    expected, _ = state_dict.to_d2(state, state_dict.audit(state, model))
    assert same(converted, expected)
    assert all(v.dtype == torch.float32 for v in converted.values())


def test_class_agnostic_boxes(tmp_path, state, model):
    """There are two "classes" of boxes then: the background's and everything else's."""
    model = dataclasses.replace(model, class_agnostic_bbox_reg=True)
    for leaf in ("weight", "bias"):
        key = f"roi_heads.box.predictor.bbox_pred.{leaf}"
        state[key] = state[key][:8]
    source, there, back = saved(tmp_path, state), tmp_path / "d2.pth", tmp_path / "vmb.pth"
    convert_checkpoint(source, there, model)
    converted = torch.load(there, weights_only=True)["model"]
    rows = state["roi_heads.box.predictor.bbox_pred.weight"][4:]
    assert torch.equal(converted["roi_heads.box_predictor.bbox_pred.weight"], rows)
    assert get_cfg(model).MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG
    revert_checkpoint(there, back)
    assert same(torch.load(back, weights_only=True)["model"], state)
