"""tools/gpu.py and `make gpu` as users run them, on the CPU."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
import support
from gpu_steps import STEPS

TOOL = support.ROOT / "tools" / "gpu.py"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--device", "cuda:97"], "--device=cuda:97: valid here are auto, cpu"),
        (["--steps", "parity,rpn"], "--steps=rpn: valid are parity, speed, precision, kernels, "),
        (["--report", "x.md"], "there are no results: `make gpu` makes them"),
    ],
)
def test_mistakes_are_one_line(tmp_path, monkeypatch, capsys, options, expected):
    program = support.in_this_process(TOOL, monkeypatch, capsys)
    status, _, err = program("--output", tmp_path / "out", *options)
    assert (status, len(err.splitlines())) == (2, 1)
    assert err.startswith(f"error: {expected}")


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    """A copy of the tree without an environment, as it gets to another machine."""
    folder = tmp_path_factory.mktemp("copied") / "VMB-D2"
    parts = ("vmb_d2", "weights_conversion", "tools", "reference", "demo", "docs", "tests")
    ignored = shutil.ignore_patterns("__pycache__", "output")
    for name in parts:
        shutil.copytree(support.ROOT / name, folder / name, ignore=ignored)
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(support.ROOT / name, folder)
    return folder


def make(folder, *words, python=sys.executable):
    kept = {k: v for k, v in os.environ.items() if not k.startswith("MAKE") and k != "PYTHONPATH"}
    return subprocess.run(
        ["make", *words, "DEVICE=cpu", f"PYTHON={python}"],
        cwd=folder,
        env=kept,
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )


@pytest.mark.slow
def test_a_copied_folder(copied):
    """Steps that are quick on the CPU, in two calls, and the report."""
    done = make(copied, "gpu", "GPU_STEPS=selection")
    assert done.returncode == 0, done.stderr
    done = make(copied, "gpu", "GPU_STEPS=tests,selection")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^selection: is there, 3 cases$", done.stdout, re.MULTILINE)
    outcomes = r"^tests: .*: 0 passed, 0 failed, [1-9]\d* skipped \(needs a GPU\)"
    assert re.search(outcomes, done.stdout, re.MULTILINE)
    results = copied / "demo" / "output" / "gpu_on_cpu"
    assert sorted(path.name for path in results.iterdir()) == ["selection.json", "tests.json"]
    found = json.loads((results / "selection.json").read_text())
    assert list(found["cases"]) == ["peaked", "flat", "equal"]
    assert found["machine"]["device"] == "cpu"
    done = make(copied, "gpu-report")
    assert done.returncode == 0, done.stderr
    page = (copied / "docs" / "gpu.md").read_text()
    assert "Nothing on this page was measured on a GPU" in page
    assert not (copied / ".venv").exists()


def test_a_python_without_packages(copied, tmp_path):
    """Names what it lacks, and installs nothing, since this is no clone."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    python.chmod(0o755)
    done = make(copied, "gpu", python=python)
    assert done.returncode == 2
    assert "lacks torch, torchvision, detectron2, " in done.stderr
    assert not (copied / ".venv").exists()


# Writes down how it is called, and has no PyTorch.
PYTHON = """#!/bin/sh
echo "$0 $*" >> calls.log
case "$*" in
"-m venv "*) mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
"-c import torch") exit 1 ;;
esac
"""


@pytest.mark.parametrize(
    ("there", "installs"), [([".git"], True), ([], False), ([".git", "wheels"], False)]
)
def test_only_a_clone_without_pytorch_is_installed(tmp_path, there, installs):
    for name in ("Makefile", "pyproject.toml", *map(str, support.ROOT.glob("requirements*.txt"))):
        shutil.copy(support.ROOT / name, tmp_path)
    for name in there:
        (tmp_path / name).mkdir()
    (tmp_path / "python").write_text(PYTHON)
    (tmp_path / "python").chmod(0o755)
    done = make(tmp_path, "gpu", "GPU_STEPS=parity", python="./python")
    assert done.returncode == 0, done.stderr
    calls = (tmp_path / "calls.log").read_text().splitlines()
    python = ".venv/bin/python" if installs else "./python"
    options = "--output demo/output/gpu_on_cpu --device cpu --limit 600 --steps parity"
    assert calls[-1] == f"{python} tools/gpu.py {options}"
    assert any("pip" in call and "install" in call for call in calls) == installs


def test_the_docs_name_every_option_and_step(monkeypatch, capsys):
    status, text, _ = support.in_this_process(TOOL, monkeypatch, capsys)("--help")
    assert status == 0
    docs = (support.ROOT / "docs" / "performance.md").read_text()
    assert ", ".join(STEPS) in " ".join(text.split())
    for name in ("DEVICE=cpu", "GPU_STEPS=", "GPU_LIMIT=", "make gpu-report", "wheels/"):
        assert name in docs
