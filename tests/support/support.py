"""Reference data, synthetic checkpoints and the models made of them."""

import contextlib
import dataclasses
import functools
import json
import os
import runpy
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from reference import models
from reference.goldens import image_path
from reference.models import description, listing, vmb_state, yaml_path
from reference.synthetic_weights import with_twins
from vmb_d2.checkpoint.pretrained import load_described_model
from vmb_d2.structures.regions import RegionFeatures

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "reference"
TEST_PATH = os.pathsep.join(map(str, (ROOT, ROOT / "tests" / "support")))
TINY_MODELS, TINY_LINEAGES = models.TINY_VMB, models.TINY_LINEAGES
TINY_FPN = TINY_MODELS[0]
FULL_MODELS = models.FULL_VMB
# the listing of a full-size model -> the model's name
FULL_LINEAGES = {name: own for name, own in models.FULL.items() if name not in FULL_MODELS}


def yaml_tree(model):
    """The nested dict of a tiny model's yaml."""
    return yaml.safe_load(yaml_path(model).read_text())


def yaml_with(model, key, value):
    """The same, with another value of a key such as ``"MODEL.RPN.NMS_THRESH"``."""
    tree = yaml_tree(model)
    *sections, leaf = key.split(".")
    node = tree
    for section in sections:
        node = node.setdefault(section, {})
    node[leaf] = value
    return tree


def saved(folder, content, name="in.pth", **options):
    path = folder / name
    torch.save(content, path, **options)
    return path


def shapes_only(name):
    """The original's state dict with ones for its weights."""
    spec = listing(name)
    state = {k: torch.ones(()).expand(shape) for k, shape in spec["shapes"].items()}
    return with_twins(state, spec) | {k: torch.tensor(v) for k, v in spec["anchors"].items()}


def with_training_state(state):
    """A checkpoint as VMB's trainer writes it."""
    return {
        "model": state,
        "optimizer": {"state": {}, "param_groups": [{"lr": 0.01}]},
        "scheduler": {"last_epoch": 7},
        "iteration": 7,
    }


@functools.cache
def scratch():
    """A folder for what several tests share; removed when the tests end."""
    return Path(tempfile.mkdtemp(prefix="vmb_d2_tests_"))


def remove_scratch():
    if scratch.cache_info().currsize:
        shutil.rmtree(scratch())


@functools.cache
def vmb_checkpoint(model):
    """Path of a synthetic VMB checkpoint."""
    path = scratch() / f"{model}.pth"
    torch.save({"model": vmb_state(model)}, path)
    return path


@functools.cache
def tiny_model(model):
    return load_model(vmb_checkpoint(model), description(model), cache_dir=scratch() / "cache")


def load_model(weights, model=None, **options):
    """The network alone of what ``load_described_model`` returns."""
    return load_described_model(weights, model, **options)[0]


def in_this_process(program, monkeypatch, capsys):
    """What runs a program with arguments in this process: (exit status, stdout, stderr)."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", [str(program), *map(str, arguments)])
        monkeypatch.syspath_prepend(str(program.parent))
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(program), run_name="__main__")
        return end.value.code, *capsys.readouterr()

    return run


def run_tool(*arguments, cwd=ROOT, **environment):
    """Run a program of the project with its own interpreter; return the finished process."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, **{k: str(v) for k, v in environment.items()}},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


def extract(*overrides, **environment):
    """Run tools/extract.py. Its weights' cache is the tests' own."""
    environment.setdefault("VMB_D2_CACHE", scratch() / "cache")
    return run_tool("tools/extract.py", *overrides, **environment)


def tiny_options(model, source, target):
    """The options of tools/extract.py with a tiny model; without an input where source is None."""
    return [
        "model=vmb",
        f"model.config_file={yaml_path(model)}",
        f"model.weights={vmb_checkpoint(model)}",
        *([] if source is None else [f"input.dir={source}"]),
        f"output.dir={target}",
    ]


def extract_tiny(model, source, target, *overrides, **environment):
    """Run tools/extract.py with a tiny model."""
    return extract(*tiny_options(model, source, target), *overrides, **environment)


def tiny_command(model, source, target, *overrides):
    """The same as a command with the tests' cache, for tests that watch it run."""
    cache = f"cache_dir={scratch() / 'cache'}"
    options = tiny_options(model, source, target)
    return [sys.executable, "tools/extract.py", *options, cache, *map(str, overrides)]


@contextlib.contextmanager
def file_size_limit(size):
    """Let this process write no file beyond ``size`` bytes: what a full disk or quota does."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def links(folder, *names):
    """A folder of some of the goldens' images."""
    folder.mkdir(exist_ok=True)
    for name in names:
        os.symlink(image_path(name), folder / name)
    return folder


def some_regions(seed=0, count=5, dimension=16, classes=9, **changes):
    """Regions made up, with values of every field that an extraction fills."""
    rng = np.random.default_rng(seed)
    corners = rng.random((count, 2), dtype=np.float32) * 300
    sides = rng.random((count, 2), dtype=np.float32) * 100 + 5
    cls_prob = rng.random((count, classes), dtype=np.float32)
    values = {
        "features": rng.random((count, dimension), dtype=np.float32),
        "bbox": np.concatenate([corners, corners + sides], axis=1),
        "num_boxes": max(count - 1, 0),
        "objects": cls_prob.argmax(axis=1),
        "cls_prob": cls_prob,
        "image_width": 640,
        "image_height": 427,
    }
    return RegionFeatures(**{**values, **changes})


def some_attributes(rng, count, most=16):
    """The fields of RegionFeatures that hold attributes, of 400, each with a score above 0."""
    ids = rng.integers(0, 400, (count, most))
    scores = np.sort(rng.random((count, most), dtype=np.float32) + 0.1)[:, ::-1].copy()
    best = {"attrs_id": ids[:, 0].copy(), "attrs_conf": scores[:, 0].copy()}
    return {**best, "attribute_ids": ids, "attribute_scores": scores}


def assert_same_regions(found, expected, but=()):
    """Every field is equal, dtypes included, but for those named, which are None."""
    for field in dataclasses.fields(expected):
        a, b = getattr(found, field.name), getattr(expected, field.name)
        if field.name in but:
            assert a is None, field.name
        elif isinstance(b, np.ndarray):
            assert (a.dtype, a.shape) == (b.dtype, b.shape), field.name
            assert np.array_equal(a, b), field.name
        elif isinstance(b, Mapping):
            assert sorted(a) == sorted(b), field.name
            for key, value in b.items():
                assert np.array_equal(a[key], value), key
                assert type(a[key]) is type(value), key
        else:
            assert a == b, field.name
            assert type(a) is type(b), field.name


def class_names_file(folder, count=9):
    """A file of class names: "thing 0" and so on."""
    entries = [{"id": i + 1, "name": f"thing {i}"} for i in range(count)]
    path = folder / "classes.json"
    path.write_text(json.dumps({"categories": entries}))
    return path


def data_file(format_name, path):
    """The file of a store in which its images are, of a format with one file."""
    return path / {"lmdb": "data.mdb", "vilbert": "data.mdb", "oscar": "features.tsv"}.get(
        format_name, "."
    )


class Runs:
    """Unpickled, it makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)
