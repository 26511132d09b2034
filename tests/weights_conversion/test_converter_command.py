"""The converter's command line, and the files that it reads and writes."""

import pytest
import support
import torch
from support import TINY_FPN as TINY
from support import saved

from vmb_d2.errors import CheckpointError
from weights_conversion import checkpoint_file
from weights_conversion.convert import convert_checkpoint, main


def run(capsys, *arguments):
    status = main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


ATTRIBUTES = {
    "roi_heads.box.predictor.cls_embed.weight": (101, 32),
    "roi_heads.box.predictor.attr_linear1.weight": (64, 160),
    "roi_heads.box.predictor.attr_linear1.bias": (64,),
    "roi_heads.box.predictor.attr_linear2.weight": (401, 64),
    "roi_heads.box.predictor.attr_linear2.bias": (401,),
}


def test_ignored_keys_are_logged_with_their_reason(tmp_path, state, model, caplog):
    caplog.set_level("INFO")
    state |= {k: torch.zeros(shape) for k, shape in ATTRIBUTES.items()}
    source, target = saved(tmp_path, support.with_training_state(state)), tmp_path / "out.pth"
    convert_checkpoint(source, target, model)
    lines = caplog.text.splitlines()
    line = next(line for line in lines if "attribute head" in line)
    assert all(key in line for key in ATTRIBUTES)
    line = next(line for line in lines if "not part of the model" in line)
    assert all(key in line for key in ("optimizer", "scheduler", "iteration"))
    assert not set(ATTRIBUTES) & set(torch.load(target, weights_only=True)["model"])


def test_of_many_ignored_keys_five_are_logged(tmp_path, caplog, capsys):
    caplog.set_level("INFO")
    source = support.vmb_checkpoint("tiny_vinvl")
    convert_checkpoint(source, tmp_path / "out.pth", support.description("tiny_vinvl"))
    line = next(line for line in caplog.text.splitlines() if "the same as" in line)
    assert line.endswith(" and 45 more")
    assert line.count("attribute.feature_extractor.") == 5
    _, out, _ = run(capsys, source, "--dry-run", "--config", support.yaml_path("tiny_vinvl"))
    (line,) = [line for line in out.splitlines() if "the same as" in line]
    assert line.count("attribute.feature_extractor.") == 50


CLS = "roi_heads.box.predictor.cls_score.weight"
ANCHOR = "rpn.anchor_generator.cell_anchors.3"
VARIANCE = "backbone.body.stem.bn1.running_var"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda s: s.pop(CLS), [f"missing: {CLS}"]),
        (lambda s: s.update({"backbone.extra": torch.ones(1)}), ["unknown: backbone.extra"]),
        (lambda s: s.update({CLS: torch.ones(81, 128)}), [CLS, "(81, 128)", "(101, 128)"]),
        (lambda s: s.update({ANCHOR: s[ANCHOR] + 1}), [ANCHOR, "anchors"]),
        (lambda s: s.update({ANCHOR[:-1] + "9": s[ANCHOR]}), ["cell_anchors.9", "anchors"]),
        (lambda s: s[VARIANCE].__setitem__(3, 0.0), [VARIANCE, "not positive"]),
    ],
)
def test_keys_that_dont_fit(tmp_path, state, model, change, expected):
    change(state)
    source, target = saved(tmp_path, {"model": state}), tmp_path / "out.pth"
    target.write_text("older")
    with pytest.raises(CheckpointError) as caught:
        convert_checkpoint(source, target, model)
    assert "\n" not in str(caught.value)
    assert all(text in str(caught.value) for text in expected)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.pth", "out.pth"]
    assert target.read_text() == "older"


def test_of_another_model(tmp_path, model):
    state = support.vmb_state("tiny_x152_c4")
    with pytest.raises(CheckpointError, match=r"doesn't fit the model: missing: .* more, which"):
        convert_checkpoint(saved(tmp_path, state), tmp_path / "out.pth", model)


class Refused:
    """An object that ``weights_only`` doesn't load."""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds a list"),
        ({"model": {}}, "no state dict"),
        ({"model": {"a": torch.ones(1), "b": "text"}}, "no tensors: b"),
    ],
)
def test_checkpoints_without_a_state_dict(tmp_path, content, message):
    source = saved(tmp_path, content)
    with pytest.raises(CheckpointError, match=message):
        checkpoint_file.state_dict_of(checkpoint_file.read_checkpoint(source), source)


@pytest.mark.parametrize("zipped", [True, False])
def test_pickled_objects_need_the_flag(tmp_path, state, capsys, caplog, zipped):
    content = {"model": state, "scheduler": Refused()}
    source = saved(tmp_path, content, _use_new_zipfile_serialization=zipped)
    arguments = (source, tmp_path / "out.pth", "--config", support.yaml_path(TINY))
    status, _, err = run(capsys, *arguments)
    assert status == 2
    assert f"{__name__}.Refused" in err
    assert "--unsafe-load" in err
    assert not (tmp_path / "out.pth").exists()
    status, _, _ = run(capsys, *arguments, "--unsafe-load")
    assert status == 0
    assert "runs any code" in caplog.text
    assert torch.load(tmp_path / "out.pth", weights_only=True)


def test_no_room_leaves_nothing(tmp_path, model):
    source, target = support.vmb_checkpoint(TINY), tmp_path / "out.pth"
    with support.file_size_limit(100_000), pytest.raises(CheckpointError, match="can't be written"):
        convert_checkpoint(source, target, model)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(CheckpointError, match="can't be written"):
        convert_checkpoint(source, tmp_path / "none" / "out.pth", model)


def test_dry_run_says_what_becomes_of_each_key_and_writes_nothing(tmp_path, state, capsys):
    state["backbone.extra"] = torch.ones(1)
    del state[CLS]
    source = saved(tmp_path, {"model": state})
    config = ("--config", support.yaml_path(TINY))
    status, out, err = run(capsys, source, "--dry-run", *config)
    assert status == 2
    assert all(key in out for key in state)
    assert f"(none)  ->  {CLS}  ->  roi_heads.box_predictor.cls_score.weight  (background" in out
    assert f"missing: {CLS}" in out
    assert "unknown: backbone.extra" in out
    assert CLS in err
    assert [p.name for p in tmp_path.iterdir()] == ["in.pth"]
    status, out, err = run(capsys, support.vmb_checkpoint(TINY), "--dry-run", *config)
    assert (status, err) == (0, "")


def test_reverse_on_the_command_line(tmp_path, model, capsys):
    convert_checkpoint(support.vmb_checkpoint(TINY), tmp_path / "d2.pth", model)
    status, _, _ = run(capsys, tmp_path / "d2.pth", tmp_path / "vmb.pth", "--reverse")
    assert status == 0
    status, _, err = run(capsys, support.vmb_checkpoint(TINY), tmp_path / "x.pth", "--reverse")
    assert status == 2
    assert "not written by this converter" in err
    config = ("--config", support.yaml_path(TINY))
    status, _, err = run(capsys, tmp_path / "d2.pth", tmp_path / "2.pth", *config)
    assert status == 2
    assert "is converted already" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["in.pth"], "OUT.pth is missing"),
        (["in.pth", "out.pth"], "--model or --config is missing"),
        (["in.pth", "out.pth", "--reverse", "--model", "x152"], "takes no other option"),
    ],
)
def test_usage(arguments, message, capsys):
    status, _, err = run(capsys, *arguments)
    assert (status, len(err.splitlines())) == (2, 1)
    assert message in err


@pytest.mark.slow
def test_runs_as_a_module(tmp_path):
    source, target = support.vmb_checkpoint(TINY), tmp_path / "out.pth"
    options = ("--config", support.yaml_path(TINY))
    done = support.run_tool("-m", "weights_conversion.convert", source, target, *options)
    assert (done.returncode, done.stderr) == (0, "")
    assert "805 parameters converted" in done.stdout
    assert checkpoint_file.read_checkpoint(tmp_path / "out.pth")["__author__"] == "VMB-D2"
