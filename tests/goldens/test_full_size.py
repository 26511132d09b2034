"""The full-size models, end to end through tools/extract.py, against the original's goldens.

Tolerances as in golden_checks.py. Takes about 1.5 minutes a model on two CPU cores and up to
6 GB of memory, and 2 GB of disk that is freed after each.
"""

import re
import shutil
from types import SimpleNamespace

import lineage_checks
import numpy as np
import pytest
import support
import torch
from golden_checks import check
from html_page import Parser

from reference import goldens
from vmb_d2.comparison.fidelity import distance
from vmb_d2.config import RELEASED_WEIGHTS
from vmb_d2.stores.mmf import MMFReader

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def full(request, tmp_path_factory):
    """A model with its weights in VMB's layout and a cache of its own."""
    folder = tmp_path_factory.mktemp(request.param)
    weights = folder / "vmb.pth"
    torch.save({"model": support.vmb_state(request.param)}, weights)
    yield SimpleNamespace(name=request.param, weights=weights, cache=folder / "cache")
    shutil.rmtree(folder)


def golden_of(model):
    ((path, _, image),) = goldens.find(rf"{model}\.seed0\.bs1\.")
    return path, image


@pytest.mark.parametrize("full", support.FULL_MODELS, indirect=True)
def test_golden(tmp_path, full):
    path, image = golden_of(full.name)
    done = support.extract(
        f"model={full.name}",
        f"model.weights={full.weights}",
        f"input.dir={goldens.image_path(image)}",
        f"output.dir={tmp_path / 'out'}",
        f"cache_dir={full.cache}",
    )
    assert done.returncode == 0, done.stderr
    check(path, tmp_path / "out", image)


@pytest.mark.parametrize(
    ("full", "name", "sets"),
    [
        (
            "vinvl",
            "vinvl",
            {"readme": [], "reg": ["read_out=vinvl_reg"], "demo": ["read_out=vinvl_reg"]},
        ),
        (
            "frcnn_vg",
            "frcnn_vg",
            {
                "max36": [],
                "min10max100": ["extract.min_features=10", "extract.max_features=100"],
            },
        ),
        ("bua_caffe_r101", "bua", {"max36": ["extract.num_features=36"], "min10max100": []}),
    ],
    indirect=["full"],
)
def test_golden_of_a_lineage(tmp_path, full, name, sets):
    for tag, options in sets.items():
        ((path, _, image),) = goldens.find(rf"{full.name}\.seed0\.{tag}\.")
        done = support.extract(
            f"model={name}",
            f"model.weights={full.weights}",
            f"input.dir={goldens.image_path(image)}",
            f"output.dir={tmp_path / tag}",
            f"cache_dir={full.cache}",
            *options,
        )
        assert done.returncode == 0, done.stderr
        found = MMFReader(tmp_path / tag).read(image.split(".")[0])
        lineage_checks.check(np.load(path), found, image)


@pytest.mark.parametrize("full", ["x152"], indirect=True)
def test_the_demo_ends_with_the_page(tmp_path, full):
    (tmp_path / "x152_synthetic.pth").symlink_to(full.weights)
    full.cache.mkdir(exist_ok=True)
    (tmp_path / "cache").symlink_to(full.cache)
    done = support.run_tool("demo/demo.py", "--output", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "\nThe original's features.\n" in done.stdout
    page = tmp_path / "page" / "index.html"
    assert done.stdout.splitlines()[-1] == f"The photographs with their boxes: {page}"
    images = Parser(page).images()
    assert [image["name"] for image in images] == ["camera", "chelsea", "coffee", "rocket"]


@pytest.mark.parametrize("full", ["x152"], indirect=True)
def test_the_example_of_the_docs(full, monkeypatch, capsys):
    """As it stands there, but for where the released weights come from."""
    text = (support.ROOT / "docs" / "python_api.md").read_text()
    example = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
    monkeypatch.setitem(RELEASED_WEIGHTS, "x152", str(full.weights))
    monkeypatch.setenv("VMB_D2_CACHE", str(full.cache))
    monkeypatch.chdir(support.ROOT)
    names = {}
    exec(example, names)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "(100, 2048)"
    assert printed[-1] == "(2, 2048) (2, 1601)"
    path, image = golden_of("x152")
    assert image in example
    result = distance(goldens.load(path), names["regions"])
    assert (result.matched_share, result.same_class) == (1, 100)
    assert result.features < 2e-5
