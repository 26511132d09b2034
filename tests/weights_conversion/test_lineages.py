"""Conversion of VinVL's, frcnn_vg's and bua's checkpoints: rows, twins, heads, and wrong keys."""

import pickle

import numpy as np
import pytest
import support
import torch
from support import saved

from vmb_d2.errors import CheckpointError
from weights_conversion import state_dict
from weights_conversion.checkpoint_file import read_checkpoint
from weights_conversion.convert import convert_checkpoint

PREDICTOR = "roi_heads.box_predictor"
OBJECTNESS = "proposal_generator.rpn_head.objectness_logits"
ANCHORS = "proposal_generator.anchor_generator.cell_anchors.0"
TWIN = "attribute.feature_extractor.head.layer4.1.conv2.weight"
FIRST = "roi_heads.box.feature_extractor.head.layer4.1.conv2.weight"
# model -> how the names of its head for attributes begin
HEADS = {
    "tiny_vinvl": ("attribute.",),
    "tiny_frcnn_vg": tuple(f"{PREDICTOR}.{m}." for m in ("cls_embedding", "fc_attr", "attr_score")),
    "tiny_bua_caffe": (f"{PREDICTOR}.cls_embed.", f"{PREDICTOR}.attr_linear"),
}


def converted(name, state=None):
    """The converted state dict, and the rows that were dropped."""
    state = support.vmb_state(name) if state is None else state
    model = state_dict.without_missing_head(state, support.description(name))
    audited = state_dict.audit(state, model)
    assert audited.problems == []
    return state_dict.to_d2(state, audited)


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    assert [key for key, value in expected.items() if not torch.equal(found[key], value)] == []


def test_frcnn_vg_stays_as_it_is():
    found, dropped = converted("tiny_frcnn_vg")
    names = {
        f"{PREDICTOR}.{module}": f"roi_heads.attribute_head.{module}"
        for module in ("cls_embedding", "fc_attr", "attr_score")
    }
    expected = {}
    for key, value in support.vmb_state("tiny_frcnn_vg").items():
        module, _, leaf = key.rpartition(".")
        expected[f"{names.get(module, module)}.{leaf}"] = value
    assert_same(found, expected)
    assert dropped == {}


def test_rows_of_bua():
    state = support.vmb_state("tiny_bua_caffe")
    found, dropped = converted("tiny_bua_caffe")
    head = "roi_heads.attribute_head"
    for ours, its in (
        (f"{PREDICTOR}.cls_score.weight", f"{PREDICTOR}.cls_score.weight"),
        (f"{head}.cls_embedding.weight", f"{PREDICTOR}.cls_embed.weight"),
        (f"{head}.attr_score.bias", f"{PREDICTOR}.attr_linear2.bias"),
    ):
        assert torch.equal(found[ours], torch.cat([state[its][1:], state[its][:1]]))
    for leaf in ("weight", "bias"):
        boxes, objectness = state[f"{PREDICTOR}.bbox_pred.{leaf}"], state[f"{OBJECTNESS}.{leaf}"]
        assert torch.equal(found[f"{PREDICTOR}.bbox_pred.{leaf}"], boxes[4:])
        assert torch.equal(dropped[f"{PREDICTOR}.bbox_pred.{leaf}"], boxes[:4])
        assert torch.equal(found[f"{OBJECTNESS}.{leaf}"], objectness[12:] - objectness[:12])
        assert torch.equal(dropped[f"{OBJECTNESS}.{leaf}"], objectness[:12])
    for name in ("backbone.stem.conv1.norm.running_var", ANCHORS):
        assert torch.equal(found[name], state[name])


def test_a_file_without_twins_is_the_same():
    state = support.vmb_state("tiny_vinvl")
    single = {k: v for k, v in state.items() if not k.startswith("attribute.feature_extractor.")}
    assert len(state) - len(single) == 50
    assert_same(converted("tiny_vinvl", single)[0], converted("tiny_vinvl")[0])


@pytest.mark.parametrize("name", HEADS)
def test_a_file_without_the_head_for_attributes(tmp_path, name):
    state = {k: v for k, v in support.vmb_state(name).items() if not k.startswith(HEADS[name])}
    target = tmp_path / "out.pth"
    convert_checkpoint(saved(tmp_path, state), target, support.description(name))
    content = torch.load(target, weights_only=True)
    assert content["vmb_d2"]["source_config"]["attributes"] is None
    expected, _ = converted(name)
    assert_same(content["model"], {k: v for k, v in expected.items() if "attribute" not in k})


def pickled(folder, content, protocol=2):
    path = folder / "in.pkl"
    path.write_bytes(pickle.dumps(content, protocol))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("protocol", [2, 5])
@pytest.mark.parametrize("with_head", [True, False])
def test_a_pickle_of_arrays(tmp_path, protocol, with_head):
    """As airsplay's, which are without counters; one has no head for attributes."""
    name, target = "tiny_frcnn_vg", tmp_path / "out.pth"
    state = support.vmb_state(name)
    if not with_head:
        state = {k: v for k, v in state.items() if not k.startswith(HEADS[name])}
    arrays = {key: value.numpy() for key, value in state.items()}
    source = pickled(tmp_path, {"model": arrays, "matching_heuristics": True}, protocol)
    convert_checkpoint(source, target, support.description(name))
    assert_same(torch.load(target, weights_only=True)["model"], converted(name, state)[0])
    network = support.load_model(source, support.description(name), cache_dir=tmp_path / "cache")
    assert (network.roi_heads.attribute_head is not None) == with_head


def test_nothing_in_a_pickle_is_run(tmp_path):
    content = {"model": {"a": support.Runs(str(tmp_path / "made"))}}
    source = pickled(tmp_path, content)
    for unsafe in (False, True):
        with pytest.raises(CheckpointError, match="only plain values and NumPy arrays are read"):
            read_checkpoint(source, unsafe)
    assert not (tmp_path / "made").exists()


def test_a_pickle_of_something_else(tmp_path):
    with pytest.raises(CheckpointError, match="holds a list"):
        read_checkpoint(pickled(tmp_path, [1, 2]))
    source = pickled(tmp_path, {"a": np.ones(999)})
    source.write_bytes(source.read_bytes()[:999])
    with pytest.raises(CheckpointError, match="no whole pickle"):
        read_checkpoint(source)


@pytest.mark.parametrize("protocol", [2, 5])
def test_torchs_old_format_is_no_such_pickle(tmp_path, protocol):
    options = {"_use_new_zipfile_serialization": False, "pickle_protocol": protocol}
    source = saved(tmp_path, {"model": {"a": torch.arange(3.0)}}, **options)
    unsafe = protocol > 2  # weights_only reads no newer protocol
    assert read_checkpoint(source, unsafe)["model"]["a"].tolist() == [0, 1, 2]


def removed(key):
    return lambda state: state.pop(key)


def with_value(key, change):
    return lambda state: state.update({key: change(state[key])})


@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [
        (
            "tiny_vinvl",
            removed("attribute.predictor.fc_attr.bias"),
            "missing: attribute.predictor.fc_attr.bias",
        ),
        (
            "tiny_vinvl",
            with_value(TWIN, lambda value: value + 1e-3),
            f"values of {TWIN}: others than those of {FIRST}",
        ),
        (
            "tiny_vinvl",
            with_value("attribute.predictor.cls_embedding.weight", lambda value: value[1:]),
            "shape of attribute.predictor.cls_embedding.weight: (100, 32), not (101, 32)",
        ),
        ("tiny_frcnn_vg", removed(ANCHORS), f"missing: {ANCHORS}"),
        (
            "tiny_bua_caffe",
            with_value(f"{OBJECTNESS}.bias", lambda value: value[12:]),
            f"shape of {OBJECTNESS}.bias: (12,), not (24,)",
        ),
    ],
)
def test_keys_that_dont_fit(name, change, expected):
    state = support.vmb_state(name)
    change(state)
    (problem, *_) = state_dict.audit(state, support.description(name)).problems
    assert problem.startswith(expected)


@pytest.mark.parametrize("name", support.TINY_LINEAGES)
def test_a_file_of_another_lineage(tmp_path, name):
    for other in set(support.TINY_LINEAGES) - {name}:
        source = support.vmb_checkpoint(other)
        with pytest.raises(CheckpointError, match=r"doesn't fit the model|of another model"):
            convert_checkpoint(source, tmp_path / "out.pth", support.description(name))
    assert list(tmp_path.iterdir()) == []
