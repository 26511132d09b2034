"""Checkpoints whose names are only the ends of VMB's, as its Caffe2 converter leaves them."""

import re

import pytest
import support
import torch
from support import TINY_FPN as TINY
from support import saved, shapes_only

from vmb_d2.errors import CheckpointError
from weights_conversion import state_dict
from weights_conversion.convert import convert_checkpoint, main

pytestmark = pytest.mark.slow

STEM = "backbone.body.stem.conv1.weight"
FC6 = "roi_heads.box.feature_extractor.fc6.weight"
LEFT_OVER = (
    "fc1000.weight",
    "fc1000.bias",
    "conv1.bias",
    "layer1.0.conv2.bias",
    "attr_score.weight",
)


def caffe2_name(name):
    """How the converter calls what has ``name`` in VMB."""
    for prefix in ("backbone.body.stem.", "backbone.body.", "backbone.fpn."):
        name = name.removeprefix(prefix)
    return re.sub(
        r"^roi_heads\.box\.(feature_extractor\.head|feature_extractor|predictor)\.", "", name
    )


def is_statistic(name):
    return name.endswith((".running_mean", ".running_var"))


def caffe2_state(state):
    """Without statistics and anchors, with blobs that the network has no place for."""
    left = {name: torch.rand(3) for name in LEFT_OVER}
    wanted = {k: v for k, v in state.items() if not is_statistic(k) and "anchor" not in k}
    return {caffe2_name(k): v for k, v in wanted.items()} | left


def without_statistics(state):
    """The state with the means and variances that change nothing."""
    for name, value in state.items():
        if is_statistic(name):
            state[name] = torch.full_like(value, float(name.endswith("var")))
    return state


def converted(folder, state, model, name="out.pth"):
    convert_checkpoint(saved(folder, {"model": state}), folder / name, model)
    return torch.load(folder / name, weights_only=True)["model"]


@pytest.mark.parametrize("name", support.TINY_MODELS)
def test_the_same_values_become_the_same_model(tmp_path, name):
    state, model = without_statistics(support.vmb_state(name)), support.description(name)
    found = converted(tmp_path, caffe2_state(state), model)
    expected = converted(tmp_path, state, model)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[k], expected[k]) for k in expected)


def test_the_released_x101_has_342_names_and_each_finds_its_parameter():
    state = caffe2_state(shapes_only("x101"))
    assert len(state) == 342 + len(LEFT_OVER)
    audited = state_dict.audit(state, support.description("x101"))
    assert audited.problems() == []
    assert set(audited.sources.values()) == state.keys() - set(LEFT_OVER)
    assert all(caffe2_name(name) == key for name, key in audited.sources.items())
    assert audited.ignored.keys() == set(LEFT_OVER)


@pytest.mark.parametrize(
    ("names", "prefix"),
    [("VMB's", "module.module."), ("VMB's", "detector.net."), ("Caffe2's", "module.")],
)
def test_a_prefix_before_all_names(tmp_path, state, model, prefix, names):
    state = without_statistics(state)
    expected = converted(tmp_path, state, model)
    if names == "Caffe2's":
        state = caffe2_state(state)
    found = converted(tmp_path, {prefix + k: v for k, v in state.items()}, model)
    assert all(torch.equal(found[k], expected[k]) for k in expected)


def test_a_prefix_before_the_networks_names_only(tmp_path, state, model):
    expected = converted(tmp_path, state, model)
    state = {f"model.{k}": v for k, v in state.items()} | {"loss.weight": torch.ones(2)}
    found = converted(tmp_path, state, model)
    assert all(torch.equal(found[k], expected[k]) for k in expected)


def dry_run(capsys, folder, state, *options):
    source = saved(folder, {"model": state})
    status = main([str(source), "--dry-run", "--config", str(support.yaml_path(TINY)), *options])
    return status, *capsys.readouterr()


def test_the_dry_run_says_which_name_became_which(tmp_path, state, capsys):
    status, out, _ = dry_run(capsys, tmp_path, caffe2_state(state))
    assert status == 0
    d2 = "backbone.bottom_up.stem.conv1.weight"
    assert f"conv1.weight  ->  {STEM}  ->  {d2}  [" in out.splitlines()[0]
    assert f"\nfc6.weight  ->  {FC6}  ->  roi_heads.box_head.fc1.weight  [" in out
    assert "\nrpn.head.conv.weight  ->  proposal_generator" in out
    (left,) = [line for line in out.splitlines() if "left over" in line]
    assert all(name in left for name in LEFT_OVER)
    assert "no statistics of batch norms: running_mean 0 and running_var 1" in out


def one_mean(state):
    state["layer2.0.bn1.running_mean"] = torch.zeros(1)


def statistics_of_something_else(state):
    state["other.bn1.running_mean"] = torch.zeros(16)


def without(*names):
    def change(state):
        for name in names:
            del state[name]

    return change


BIAS = "backbone.body.layer1.0.bn1.bias"


def with_twin(state):
    state[BIAS] = state[f"ema.{BIAS}"] = state.pop("layer1.0.bn1.bias")


def with_short_twin(state):
    state["module.fc6.bias"] = state["fc6.bias"] + 1


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (one_mean, ["missing: backbone.body.stem.bn1.running_mean"]),
        (statistics_of_something_else, ["missing: backbone.body.stem.bn1.running_mean"]),
        (without("fc7.weight"), ["missing: roi_heads.box.feature_extractor.fc7.weight"]),
        (without("layer2.1.conv2.weight"), ["missing: backbone.body.layer2.1.conv2.weight"]),
        (
            without("layer2.1.conv1.weight"),
            [f"ambiguous: conv1.weight for {STEM} and backbone.body.layer2.1.conv1.weight"],
        ),
        (
            without("rpn.head.bbox_pred.bias"),
            ["bbox_pred.bias for rpn.head.bbox_pred.bias and roi_heads.box.predictor.bbox_pred."],
        ),
        (with_twin, [f"ambiguous: {BIAS} and ema.{BIAS} for {BIAS}"]),
        (with_short_twin, ["ambiguous: fc6.bias and module.fc6.bias for roi_heads.box.feature"]),
        (
            lambda s: s.update({"layer2.99.conv1.weight": s["layer2.1.conv1.weight"]}),
            ["unknown: layer2.99.conv1.weight"],
        ),
        (
            lambda s: s.update({"layer3.0.conv2_offset.weight": torch.ones(2)}),
            ["unknown: layer3.0.conv2_offset.weight"],
        ),
        (lambda s: s.update({"fc6.weight": torch.ones(3, 4)}), ["shape of fc6.weight: (3, 4)"]),
    ],
)
def test_names_that_dont_fit(tmp_path, state, capsys, change, expected):
    state = caffe2_state(state)
    change(state)
    status, _, err = dry_run(capsys, tmp_path, state)
    assert status == 2
    assert len(err.splitlines()) == 1
    assert all(text in err for text in expected)


@pytest.mark.parametrize("leaf", ["running_mean", "running_var"])
def test_means_without_variances_are_missing(tmp_path, state, model, leaf):
    state = {k: v for k, v in state.items() if not k.endswith(leaf)}
    with pytest.raises(CheckpointError, match=r"doesn't fit the model .* missing"):
        converted(tmp_path, state, model)
    state, one = support.vmb_state(TINY), f"backbone.body.stem.bn1.{leaf}"
    del state[one]
    with pytest.raises(CheckpointError, match=f"1 missing: missing: {one}"):
        converted(tmp_path, state, model)


def test_the_longest_name_is_taken(tmp_path, state, model):
    expected = converted(tmp_path, state, model)
    state["conv1.weight"] = torch.zeros_like(state[STEM])
    found = converted(tmp_path, state, model)
    assert all(torch.equal(found[k], expected[k]) for k in expected)


@pytest.mark.parametrize("of", ["x152", "x152_c4"])
def test_of_another_model_is_refused_by_its_name(tmp_path, capsys, of):
    source = saved(tmp_path, caffe2_state(shapes_only(of)))
    assert main([str(source), str(tmp_path / "out.pth"), "--model", "X-101"]) == 2
    err = capsys.readouterr().err
    assert f"it is a checkpoint of {of}" in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_anchors_are_compared_within_the_rounding_of_their_type(tmp_path, state, model, dtype):
    state = {k: v.to(dtype) for k, v in state.items()}
    converted(tmp_path, state, model)
    anchors = "rpn.anchor_generator.cell_anchors.4"
    state[anchors] = state[anchors] * (1 + 8 * torch.finfo(dtype).eps)
    with pytest.raises(CheckpointError, match=f"values of {anchors}: not the anchors"):
        converted(tmp_path, state, model)
