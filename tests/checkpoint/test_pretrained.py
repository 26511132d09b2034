"""Loading a model from whatever a user has."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import support
import torch
from detectron2.modeling import build_model
from support import load_model

from vmb_d2.config import named_model, to_detectron2
from vmb_d2.errors import CheckpointError, ConfigError
from weights_conversion.convert import convert_checkpoint

TINY = "tiny_r101_c4"


@pytest.fixture
def converted(tmp_path):
    path = tmp_path / "converted.pth"
    convert_checkpoint(support.vmb_checkpoint(TINY), path, support.description(TINY))
    return path


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "model.pth"
    torch.save(support.vmb_state(TINY), path)
    return path


def same_weights(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_vmb_and_converted_checkpoints_are_told_apart(tmp_path, source, converted):
    expected = support.tiny_model(TINY)
    description = support.description(TINY)
    for weights, model in ((converted, description), (converted, None), (source, description)):
        network = load_model(weights, model, cache_dir=tmp_path / "cache")
        assert same_weights(network, expected)
        assert not network.training
        assert (tmp_path / "cache").exists() == (weights == source)


def test_what_says_not_of_what_model_it_is_needs_a_description(tmp_path, converted):
    path = tmp_path / "saved.pth"
    torch.save({"model": torch.load(converted, weights_only=True)["model"]}, path)
    assert same_weights(load_model(path, support.description(TINY)), support.tiny_model(TINY))
    for undescribed in (path, support.vmb_checkpoint(TINY)):
        with pytest.raises(ConfigError, match="config_file is missing"):
            load_model(undescribed)
    with pytest.raises(CheckpointError, match="doesn't fit the model"):
        load_model(path, support.description("tiny_x152_c4"))


def test_converted_once(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    for _ in range(2):
        load_model(support.vmb_checkpoint(TINY), support.description(TINY), cache_dir=tmp_path)
    assert caplog.text.count("converting") == 1
    assert len(list((tmp_path / "converted").glob("*.pth"))) == 1


def load(source, cache):
    return load_model(source, support.description(TINY), cache_dir=cache)


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["no conversion", "no note", "wrong note"])
def test_a_cache_that_lost_something_is_mended(source, tmp_path, damage):
    cache = tmp_path / "cache" / "converted"
    load(source, cache.parent)
    ((conversion,), (note,)) = cache.glob("*.pth"), cache.glob(".model.*")
    if damage == "no conversion":
        conversion.unlink()
    elif damage == "no note":
        note.unlink()
    else:
        note.write_text("gone.pth")
    assert same_weights(load(source, cache.parent), support.tiny_model(TINY))
    assert conversion.exists()


@pytest.mark.slow
def test_other_content_of_the_same_size_is_seen(source, tmp_path):
    load(source, tmp_path / "cache")
    size = source.stat().st_size
    torch.save(support.vmb_state(TINY, 1), source)
    assert source.stat().st_size == size
    name = "roi_heads.box.predictor.cls_score.bias"
    model = load(source, tmp_path / "cache")
    expected = support.vmb_state(TINY, 1)[name].roll(-1)
    assert torch.equal(model.roi_heads.box_predictor.cls_score.bias, expected)


@pytest.mark.slow
def test_processes_convert_once_between_them(source, tmp_path):
    code = (
        "import logging, sys, support\n"
        "logging.basicConfig(level=logging.INFO)\n"
        f"support.load_model(sys.argv[1], support.description({TINY!r}), cache_dir=sys.argv[2])"
    )
    command = [sys.executable, "-c", code, str(source), str(tmp_path / "cache")]
    environment = {**os.environ, "PYTHONPATH": support.TEST_PATH}
    processes = [
        subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
        for _ in range(4)
    ]
    logs = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, logs
    assert "".join(logs).count("converting") == 1
    assert not list(tmp_path.rglob("*.lease"))


def test_converted_as_another_model(converted):
    with pytest.raises(CheckpointError, match=r"converted as another model.*num_classes: 101"):
        load_model(converted, named_model("x152"))


def test_cache_that_cant_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cache_dir="):
        load_model(
            support.vmb_checkpoint(TINY), support.description(TINY), cache_dir=tmp_path / "file"
        )


def loaded_by_detectron2(path, model):
    """The network with random values in its parameters, and the checkpoint's copied over them."""
    network = build_model(to_detectron2(model)).eval()
    network.load_state_dict(torch.load(path, weights_only=True)["model"])
    return network


def assert_same_network(found, expected):
    """Every module, parameter and buffer, those that no checkpoint has too."""
    modules = [[(k, type(m), m.training) for k, m in n.named_modules()] for n in (found, expected)]
    assert modules[0] == modules[1]
    for kind in ("named_parameters", "named_buffers"):
        a, b = (dict(getattr(network, kind)()) for network in (found, expected))
        assert list(a) == list(b)
        for name, tensor in b.items():
            assert type(a[name]) is type(tensor), name
            for key in ("dtype", "device", "shape", "requires_grad"):
                assert getattr(a[name], key) == getattr(tensor, key), (name, key)
            assert a[name].stride() == tensor.stride(), name
            assert torch.equal(a[name], tensor), name


@pytest.mark.slow
@pytest.mark.parametrize("name", support.TINY_MODELS)
def test_the_network_is_detectron2s_own(tmp_path, name):
    path, description = tmp_path / "converted.pth", support.description(name)
    convert_checkpoint(support.vmb_checkpoint(name), path, description)
    expected = loaded_by_detectron2(path, description)
    assert_same_network(load_model(path, cache_dir=tmp_path / "cache"), expected)
    assert_same_network(support.tiny_model(name), expected)  # of a conversion in the cache


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["half precision", "channels-last"])
def test_tensors_of_another_kind_become_what_the_network_has(tmp_path, converted, kind):
    def changed(value):
        if kind == "half precision":
            return value.half()
        return value.to(memory_format=torch.channels_last) if value.ndim == 4 else value

    checkpoint = torch.load(converted, weights_only=True)
    checkpoint["model"] = {k: changed(v) for k, v in checkpoint["model"].items()}
    torch.save(checkpoint, converted)
    expected = loaded_by_detectron2(converted, support.description(TINY))
    assert_same_network(load_model(converted, cache_dir=tmp_path), expected)


def mapped_files():
    return Path("/proc/self/maps").read_text()


def test_conversions_in_the_cache_stay_mapped_and_unchanged(source, tmp_path):
    network = load(source, tmp_path)
    (conversion,) = (tmp_path / "converted").glob("*.pth")
    before = conversion.read_bytes()
    assert str(conversion) in mapped_files()
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 1
    assert conversion.read_bytes() == before

    network = load(source, tmp_path)
    other = support.saved(tmp_path, support.vmb_state(TINY, 1))
    convert_checkpoint(other, conversion, support.description(TINY))
    assert conversion.read_bytes() != before
    assert all(torch.equal(v, weights[k]) for k, v in network.state_dict().items())


def test_other_files_can_be_written_over(tmp_path, converted):
    network = load_model(converted, cache_dir=tmp_path / "cache")
    assert str(converted) not in mapped_files()
    expected = loaded_by_detectron2(converted, support.description(TINY))
    with open(converted, "r+b") as file:
        file.write(bytes(converted.stat().st_size))
    assert_same_network(network, expected)


def test_all_of_it_is_on_the_device(converted):
    network = load_model(converted, device="meta")
    assert {t.device.type for t in (*network.parameters(), *network.buffers())} == {"meta"}
