"""The released models, from a server in the place of the official one."""

import json
import logging

import pytest
import support
import yaml

from reference import goldens
from vmb_d2.checkpoint.released import released_model
from vmb_d2.config import named_model
from vmb_d2.errors import CheckpointError
from vmb_d2.extractor import RegionFeatureExtractor
from vmb_d2.utils import downloads
from vmb_d2.utils.downloads import cached_path

TINY = support.TINY_FPN
FOLDER = "/pythia/detectron_model/"
URL = f"{downloads.RELEASES}{FOLDER}detectron_model_x152"
PATH = f"{FOLDER}detectron_model_x152"
MODELS = support.ROOT / "vmb_d2" / "config" / "models"
COFFEE = goldens.image_path("coffee.png")


@pytest.fixture
def mirror(server, monkeypatch):
    """The server as the mirror, with nothing on it."""
    server.content = None
    monkeypatch.setenv("VMB_D2_MIRROR", f"http://127.0.0.1:{server.server_port}/")
    return server


@pytest.fixture
def release(mirror):
    """The mirror with a tiny model in the place of the x152."""
    mirror.files = {
        f"{PATH}.yaml": support.yaml_path(TINY).read_bytes(),
        f"{PATH}.pth": support.vmb_checkpoint(TINY).read_bytes(),
    }
    return mirror


def changed(name, **keys):
    """A built-in yaml with some keys of MODEL.RPN changed."""
    tree = yaml.safe_load((MODELS / f"{name}.yaml").read_text())
    tree["MODEL"]["RPN"].update(keys)
    return yaml.safe_dump(tree).encode()


def test_weights_and_yaml_are_fetched_once_and_used(release, tmp_path, monkeypatch):
    for name in ("x152", "X-152"):
        extractor = RegionFeatureExtractor.from_pretrained(name, cache_dir=tmp_path, device="cpu")
        assert extractor.description == support.description(TINY)
    assert release.requests == [f"{PATH}.yaml", f"{PATH}.pth"]
    assert extractor.extract(COFFEE).features.shape == (100, 128)
    monkeypatch.delenv("VMB_D2_MIRROR")
    assert cached_path(f"{URL}.pth", tmp_path).is_file()
    RegionFeatureExtractor.from_pretrained("x152", cache_dir=tmp_path, device="cpu")


def test_a_line_for_each_difference(mirror, tmp_path, caplog):
    keys = {"PRE_NMS_TOP_N_TEST": 6000, "FPN_POST_NMS_TOP_N_TEST": 2000}
    mirror.files[f"{PATH}.yaml"] = changed("x152", **keys)
    model = released_model("x152", tmp_path)
    assert (model.rpn_pre_nms_top_n, model.rpn_fpn_post_nms_top_n) == (6000, 2000)
    assert [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING] == [
        "x152: its released yaml has rpn_pre_nms_top_n: 6000, not 1000 as built in",
        "x152: its released yaml has rpn_fpn_post_nms_top_n: 2000, not 1000 as built in",
    ]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "HTTP 404"),
        (b"<!DOCTYPE html><html>Log in</html>", "a web page came in its place"),
        (b"MODEL: {NEW: 1, OTHER: 2}", "MODEL.NEW, MODEL.OTHER: not a key"),
    ],
)
def test_the_built_in_description_where_the_yaml_cant_be_had(
    mirror, tmp_path, caplog, content, reason
):
    mirror.files[f"{PATH}.yaml"] = content
    assert released_model("x152", tmp_path) == named_model("x152")
    (line,) = [r.getMessage() for r in caplog.records if r.name == "vmb_d2.checkpoint.released"]
    assert line.startswith("x152: described as built in, without its released yaml: ")
    assert reason in line
    assert "\n" not in line
    assert mirror.requests == [f"{PATH}.yaml"]


@pytest.mark.slow
def test_other_weights_or_another_description_fetch_no_yaml(release, tmp_path):
    vilbert = f"{downloads.RELEASES}/vilbert-multi-task/detectron_model.pth"
    release.files["/vilbert-multi-task/detectron_model.pth"] = release.files[f"{PATH}.pth"]
    with pytest.raises(CheckpointError, match="doesn't fit the model"):  # it is a tiny one
        RegionFeatureExtractor.from_pretrained("x152", weights=vilbert, cache_dir=tmp_path)
    assert release.requests == ["/vilbert-multi-task/detectron_model.pth"]


def extract(folder, model):
    return support.extract(
        f"model={model}",
        f"input.dir={COFFEE}",
        f"output.dir={folder / 'out'}",
        f"cache_dir={folder / 'cache'}",
    )


@pytest.mark.slow
def test_extract_as_mmf_names_it(release, tmp_path):
    done = extract(tmp_path, "X-152")
    assert done.returncode == 0, done.stderr
    assert "x152: its released yaml has num_groups: 8, not 32 as built in" in done.stdout
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["configuration"]["model"]["name"] == "x152"
    cached_path(f"{URL}.yaml", tmp_path / "cache").unlink()
    done = extract(tmp_path, "x152")  # with nothing to do there is no network
    assert (done.returncode, done.stderr) == (0, "")
    assert "nothing to do" in done.stdout
    assert release.requests == [f"{PATH}.yaml", f"{PATH}.pth"]
