"""The full-size models, end to end through tools/extract.py, against the original's goldens.

Tolerances as in golden_checks.py. Takes about 1.5 minutes a model on two CPU cores and up to
6 GB of memory, and 2 GB of disk that is freed after each.
"""

import re
import shutil
from types import SimpleNamespace

import pytest
import support
import torch
from golden_checks import check, check_output
from golden_sets import app_options
from html_page import Parser

from reference import goldens, models
from vmb_d2.config import RELEASED_WEIGHTS

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def full(request, tmp_path_factory):
    """A model with its weights in VMB's layout and a cache of its own."""
    folder = tmp_path_factory.mktemp(request.param)
    weights = folder / "vmb.pth"
    torch.save({"model": support.vmb_state(request.param)}, weights)
    yield SimpleNamespace(name=request.param, weights=weights, cache=folder / "cache")
    shutil.rmtree(folder)


@pytest.mark.parametrize("full", models.FULL, indirect=True)
def test_goldens(tmp_path, full):
    for path, tag, image in goldens.find(rf"{full.name}\.seed0\."):
        done = support.extract(
            f"model={models.FULL[full.name]}",
            f"model.weights={full.weights}",
            f"input.dir={goldens.image_path(image)}",
            f"output.dir={tmp_path / tag}",
            f"cache_dir={full.cache}",
            *app_options(full.name, tag),
        )
        assert done.returncode == 0, done.stderr
        check_output(path, tmp_path / tag, image)


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
    ((path, _, image),) = goldens.find(r"x152\.seed0\.bs1\.")
    assert image in example
    check(path, names["regions"], image)
