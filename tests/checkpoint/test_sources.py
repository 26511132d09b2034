"""Weights from a folder, from Hugging Face's hub, and in airsplay's form, as they are given."""

import dataclasses
import json
import logging
import sys

import pytest
import support
import yaml

from reference import goldens
from vmb_d2.config import named_model
from vmb_d2.errors import CheckpointError, ConfigError, DownloadError
from vmb_d2.extractor import RegionFeatureExtractor
from vmb_d2.utils.downloads import HUB, cached_path

TINY = "tiny_frcnn_vg"
NAME = "unc-nlp/frcnn-vg-finetuned"
WEIGHTS, YAML = (f"/{NAME}/resolve/main/{name}" for name in ("pytorch_model.bin", "config.yaml"))
COFFEE = goldens.image_path("coffee.png")


@pytest.fixture
def hub(server, monkeypatch):
    """The server as the hub, with a tiny model in the place of the released one."""
    server.content = None
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    server.files = {
        WEIGHTS: support.vmb_checkpoint(TINY).read_bytes(),
        YAML: support.yaml_path(TINY).read_bytes(),
    }
    return server


@pytest.fixture(params=["plain URL", "huggingface_hub"])
def library(request, monkeypatch, tmp_path):
    """Without huggingface_hub, and with it and an empty cache of its own."""
    if request.param == "plain URL":
        monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    else:
        pytest.importorskip("huggingface_hub")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf"))
    return request.param


@pytest.fixture
def folder(tmp_path):
    """A download of the hub's repository."""
    folder = tmp_path / "frcnn"
    folder.mkdir()
    (folder / "pytorch_model.bin").symlink_to(support.vmb_checkpoint(TINY))
    (folder / "config.yaml").symlink_to(support.yaml_path(TINY))
    return folder


def from_pretrained(model, weights=None, **options):
    cache = support.scratch() / "cache"
    return RegionFeatureExtractor.from_pretrained(
        model, weights=weights, **{"cache_dir": cache, "device": "cpu", **options}
    )


def test_the_released_weights(hub, library, tmp_path):
    for _ in range(2):
        extractor = from_pretrained("frcnn_vg", cache_dir=tmp_path)
        assert extractor.description == support.description(TINY)
    assert hub.requests == [YAML, WEIGHTS]
    assert cached_path(f"{HUB}{WEIGHTS}", tmp_path).is_file() == (library == "plain URL")
    assert extractor.extract(COFFEE).features.shape == (36, 256)


@pytest.mark.parametrize("model", ["frcnn_vg", None])
def test_a_repository(hub, library, tmp_path, model):
    for _ in range(2):
        extractor = from_pretrained(model, NAME, cache_dir=tmp_path)
        assert extractor.description == support.description(TINY)
    assert hub.requests == [YAML, WEIGHTS]


def test_a_repository_without_a_yaml(hub, library, tmp_path, caplog):
    del hub.files[YAML]
    with pytest.raises(CheckpointError, match="doesn't fit the model"):  # it is a tiny one
        from_pretrained("frcnn_vg", NAME, cache_dir=tmp_path)
    (line,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert line.startswith(f"{NAME}: not described by its config.yaml: ")
    assert "404" in line
    assert "\n" not in line


def test_no_such_repository(hub, library, tmp_path):
    for name in ("someone/nothing", "not--valid/name"):
        with pytest.raises(DownloadError, match=f"{name}.*pytorch_model.bin") as caught:
            from_pretrained("frcnn_vg", name, cache_dir=tmp_path)
        assert "\n" not in str(caught.value)


def test_a_file_that_is_missing_is_no_repository(hub, tmp_path):
    for path in ("models/model.pth", tmp_path / "a" / "b", "./a/b", "a/b/c"):
        with pytest.raises(CheckpointError, match="No such file"):
            from_pretrained("frcnn_vg", path, cache_dir=tmp_path)
    assert hub.requests == []


@pytest.mark.parametrize("model", ["frcnn_vg", None])
def test_a_folder(folder, model):
    extractor = from_pretrained(model, folder)
    assert extractor.description == support.description(TINY)


def test_a_folder_in_the_place_of_a_repository(hub, folder, monkeypatch):
    monkeypatch.chdir(folder.parent.parent)
    from_pretrained("frcnn_vg", f"{folder.parent.name}/{folder.name}")
    assert hub.requests == []


def test_another_yaml_comes_before_the_folders(folder, tmp_path):
    tree = yaml.safe_load((folder / "config.yaml").read_text())
    own = tmp_path / "own.yaml"
    own.write_text(yaml.safe_dump({**tree, "min_detections": 10, "max_detections": 20}))
    before = support.description(TINY)
    read_out = dataclasses.replace(before.read_out, least=10, most=20)
    expected = dataclasses.replace(before, read_out=read_out)
    assert from_pretrained(own, folder).description == expected


def test_folders_that_are_not_complete(folder):
    (folder / "config.yaml").unlink()
    with pytest.raises(CheckpointError, match="doesn't fit the model"):  # the built-in description
        from_pretrained("frcnn_vg", folder)
    with pytest.raises(ConfigError, match="config_file is missing"):
        from_pretrained(None, folder)
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(CheckpointError, match=r"a folder without pytorch_model.bin"):
        from_pretrained("frcnn_vg", folder)
    (folder / "config.yaml").write_text("resnets: {norm: GN}")
    with pytest.raises(ConfigError, match=r"config.yaml: resnets.norm: 'GN' is not supported"):
        from_pretrained("frcnn_vg", folder)


def extract(tmp_path, *options):
    done = support.extract(
        f"input.dir={COFFEE}",
        f"output.dir={tmp_path / 'out'}",
        f"cache_dir={tmp_path / 'cache'}",
        *options,
        HF_HOME=tmp_path / "hf",
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout, json.loads((tmp_path / "out" / "manifest.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("model", ["frcnn_vg", "vmb"])
def test_the_app_with_a_folder(tmp_path, folder, model):
    options = (f"model={model}", f"model.weights={folder}")
    extract(tmp_path, *options)
    assert "nothing to do" in extract(tmp_path, *options)[0]


@pytest.mark.slow
def test_the_app_with_a_repository(hub, tmp_path):
    options = ("model=frcnn_vg", f"model.weights={NAME}")
    extract(tmp_path, *options)
    assert "nothing to do" in extract(tmp_path, *options)[0]
    assert hub.requests == [YAML, WEIGHTS]


def test_the_built_in_model_is_the_released_one():
    """The yaml of the tests has the released one's keys, with other sizes."""
    assert named_model("frcnn_vg").read_out == support.description(TINY).read_out
