"""Checkpoints whose names are only the ends of VMB's, as its Caffe2 converter leaves them."""

import re

import pytest
import support
import torch
from support import TINY_FPN as TINY
from support import saved, shapes_only

from weights_conversion import state_dict
from weights_conversion.checkpoint_file import state_dict_of
from weights_conversion.convert import main

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


def converted(state, model):
    state = state_dict_of({"model": state}, "in.pth")
    audited = state_dict.audit(state, model)
    assert audited.problems == []
    return state_dict.to_d2(state, audited)[0]


@pytest.mark.parametrize("name", support.TINY_MODELS)
def test_the_same_values_become_the_same_model(name):
    state, model = without_statistics(support.vmb_state(name)), support.description(name)
    found = converted(caffe2_state(state), model)
    expected = converted(state, model)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[k], expected[k]) for k in expected)


def test_the_released_x101_has_342_names_and_each_finds_its_parameter():
    state = caffe2_state(shapes_only("x101"))
    assert len(state) == 342 + len(LEFT_OVER)
    audited = state_dict.audit(state, support.description("x101"))
    assert audited.problems == []
    assert set(audited.sources.values()) == state.keys() - set(LEFT_OVER)
    assert all(caffe2_name(name) == key for name, key in audited.sources.items())
    assert audited.ignored.keys() == set(LEFT_OVER)


@pytest.mark.parametrize("prefix", ["module.module.", "detector.net."])
def test_a_prefix_before_all_names(state, model, prefix):
    expected = converted(without_statistics(state), model)
    state = caffe2_state(state)
    found = converted({prefix + k: v for k, v in state.items()}, model)
    assert all(torch.equal(found[k], expected[k]) for k in expected)


def test_a_prefix_before_the_networks_names_only(state, model):
    expected = converted(state, model)
    state = {f"model.{k}": v for k, v in state.items()} | {"loss.weight": torch.ones(2)}
    found = converted(state, model)
    assert all(torch.equal(found[k], expected[k]) for k in expected)


def test_the_dry_run_says_which_name_became_which(tmp_path, state, capsys):
    source = saved(tmp_path, {"model": caffe2_state(state)})
    assert main([str(source), "--dry-run", "--config", str(support.yaml_path(TINY))]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"conv1.weight  ->  {STEM}  ->  backbone.bottom_up.stem.conv1.weight\n")
    assert f"\nfc6.weight  ->  {FC6}  ->  roi_heads.box_head.fc1.weight\n" in out
    assert "\nrpn.head.conv.weight  ->  proposal_generator" in out
    (left,) = [line for line in out.splitlines() if "left over" in line]
    assert all(name in left for name in LEFT_OVER)
    assert "no statistics of batch norms: running_mean 0 and running_var 1" in out


def without(*names):
    def change(state):
        for name in names:
            del state[name]

    return change


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            lambda s: s.update({"layer2.0.bn1.running_mean": torch.zeros(1)}),
            "missing: backbone.body.stem.bn1.running_mean",
        ),
        (without("fc7.weight"), "missing: roi_heads.box.feature_extractor.fc7.weight"),
        (
            without("layer2.1.conv1.weight"),
            f"ambiguous: conv1.weight for {STEM} and backbone.body.layer2.1.conv1.weight",
        ),
        (
            lambda s: s.update({"module.fc6.weight": s["fc6.weight"] + 1}),
            f"ambiguous: fc6.weight and module.fc6.weight for {FC6}",
        ),
        (
            lambda s: s.update({"layer2.99.conv1.weight": s["layer2.1.conv1.weight"]}),
            "unknown: layer2.99.conv1.weight",
        ),
        (
            lambda s: s.update({"layer3.0.conv2_offset.weight": torch.ones(2)}),
            "unknown: layer3.0.conv2_offset.weight",
        ),
        (lambda s: s.update({"fc6.weight": torch.ones(3, 4)}), "shape of fc6.weight: (3, 4)"),
    ],
)
def test_names_that_dont_fit(state, model, change, expected):
    state = caffe2_state(state)
    change(state)
    (problem, *_) = state_dict.audit(state, model).problems
    assert problem.startswith(expected)


def test_the_longest_name_is_taken(state, model):
    expected = converted(state, model)
    state["conv1.weight"] = torch.zeros_like(state[STEM])
    found = converted(state, model)
    assert all(torch.equal(found[k], expected[k]) for k in expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_anchors_are_compared_within_the_rounding_of_their_type(state, model, dtype):
    state = {k: v.to(dtype) for k, v in state.items()}
    converted(state, model)
    anchors = "rpn.anchor_generator.cell_anchors.4"
    state[anchors] = state[anchors] * (1 + 8 * torch.finfo(dtype).eps)
    (problem,) = state_dict.audit(state, model).problems
    assert problem.startswith(f"values of {anchors}: not the anchors")
