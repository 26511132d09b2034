"""tools/pack.py: arguments, lines, exit statuses, documentation, and its end by a signal."""

import argparse
import importlib
import itertools
import json
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import support
from jobs import manifest
from store_files import assert_images, read, write

from vmb_d2.output.manifest import Manifest
from vmb_d2.stores import FORMATS
from vmb_d2.stores.fields import FIELDS
from vmb_d2.structures import class_names

# The command, with a pause before each image so that a signal meets it at work.
SLOW = """
import runpy, sys, time
from vmb_d2.stores import FORMATS
sys.path.insert(0, "tools")
reader = FORMATS["mmf"].reader
read = reader.read
reader.read = lambda self, name: time.sleep(0.02) or read(self, name)
sys.argv[0] = "pack.py"
runpy.run_path("tools/pack.py", run_name="__main__")
"""


@pytest.fixture
def pack(monkeypatch, capsys, caplog):
    """Runs the command in this process. Returns status, log lines, and stderr's lines."""
    command = support.in_this_process(support.ROOT / "tools" / "pack.py", monkeypatch, capsys)
    caplog.set_level("INFO")

    def run(*arguments):
        caplog.clear()
        status, _, err = command(*arguments)
        return status, caplog.messages, err.splitlines()

    return run


def labels(folder):
    """The classes in Oscar's file, which has one image."""
    _, content = (folder / "oscar" / "labels.tsv").read_text().split("\t")
    return [label["class"] for label in json.loads(content)]


@pytest.fixture
def images():
    return {f"sub/x{i}": support.some_regions(i) for i in range(40)}


@pytest.fixture
def source(tmp_path, images):
    return write(tmp_path / "in", "mmf", images)


def test_as_users_run_it(tmp_path, source, images):
    target = tmp_path / "new" / "out"
    done = support.run_tool("tools/pack.py", source, "--to", "mmf", "--output", target)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "40 of 40 images to pack"
    assert lines[-1] == f"{target}: 40 packed, 0 there before, 0 failed"
    assert_images(read(target, "mmf"), images)
    found = manifest(target)
    assert found["packed_from"] == [str(source)]
    assert found["counts"] == {"packed": 40, "there_before": 0, "failed": 0}
    assert found["stores"] == [
        {"format": "mmf", "feature": None, "path": ".", "boxes_clipped": False}
    ]
    assert [run["state"] for run in found["runs"]] == ["finished"]


def test_every_option(tmp_path, source, images, pack):
    """Those of class names aside."""
    more = {"sub/x3": support.some_regions(99), "y": support.some_regions(count=0)}
    other = write(tmp_path / "other" / "features.lmdb", "lmdb", more)
    write(other.parent / "features.h5", "hdf5", {})
    (other.parent / "manifest.json").write_text(json.dumps({"settings": {"names": "a"}}))
    (source / "manifest.json").write_text(json.dumps({"settings": {"names": "b"}}))
    out = tmp_path / "out"
    options = ["--duplicates", "first", "--dtype", "float16", "--clip-boxes", "true"]
    options += ["--allow-mismatch", "--skip"]
    sources = [source, other]
    status, lines, _ = pack(*sources, "--to", "butd_tsv", "--output", out, *options)
    assert (status, lines[-1]) == (
        0,
        f"{out / 'butd.tsv'}: 40 packed, 0 there before, 0 failed, 1 left out",
    )
    assert "1 images passed over: an earlier source has their name" in lines
    assert manifest(out)["stores"][0]["boxes_clipped"] is True
    assert manifest(out)["settings"] == {}
    assert manifest(out)["counts"]["left_out"] == 1
    status, *_ = pack(other.parent, "--from", "lmdb", "--to", "mmf", "--output", tmp_path / "two")
    assert (status, sorted(read(tmp_path / "two", "mmf"))) == (0, ["sub/x3", "y"])
    pack(source, "--to", "npz", "--output", tmp_path / "half", "--dtype", "float16")
    found = read(tmp_path / "half", "npz").values()
    assert {r.features.dtype for r in found} == {np.dtype("float16")}


def test_the_documentation_names_every_option(monkeypatch):
    monkeypatch.syspath_prepend(support.ROOT / "tools")
    text = (support.ROOT / "docs" / "packing.md").read_text()
    parser = importlib.import_module("pack").parser()
    assert isinstance(parser, argparse.ArgumentParser)
    options = re.findall(r"--[\w-]+", parser.format_usage())
    for option in options:
        assert f"`{option}" in text, option
    assert "python tools/pack.py features --to lmdb --output features\n" in text


def test_the_documentation_says_what_is_kept():
    lines = (support.ROOT / "docs" / "formats.md").read_text().split("What a format keeps:")[1]
    rows = [[cell.strip() for cell in x.split("|")[1:-1]] for x in lines.splitlines() if "|" in x]
    head = [re.findall(r"\w+", cell) for cell in rows[0]]
    assert {name for names in head for name in names} == set(FORMATS)
    said = set()
    for words, *cells in itertools.takewhile(lambda row: len(row) == len(head), rows[2:]):
        fields = ["extra"] if words.startswith("other keys") else re.findall(r"`(\w+)`", words)
        said.update(fields)
        for names, cell in zip(head[1:], cells, strict=True):
            for name in names:
                writer = FORMATS[name].writer
                for field in fields:
                    assert (field in writer.keeps) == (cell not in ("", "N")), (name, field)
                if words == "float16":
                    assert (writer.only_dtype is None) == (cell == "yes"), name
    assert said == {*FIELDS, "extra"} - {"bbox", "image_width", "image_height"}


def test_one_line_and_status_2_before_anything_is_written(tmp_path, source, pack):
    target = tmp_path / "out"
    other = write(tmp_path / "other", "mmf", {"sub/x3": support.some_regions()})
    below = write(tmp_path / "below", "mmf", {n: support.some_regions() for n in ("a", "a/b")})
    (tmp_path / "file").write_text("")
    for arguments, error in [
        ((tmp_path / "none", "--output", target), "none: No such file"),
        ((source, other, "--output", target), "--duplicates=first takes the first source's)"),
        ((source, "--output", tmp_path / "file"), "file"),
        ((source, "--output", tmp_path / "file" / "below"), "file"),
        ((below, "--to", "hdf5", "--output", target), "(--skip leaves such images out)"),
    ]:
        status, _, lines = pack("--to", "mmf", *arguments)
        assert (status, len(lines)) == (2, 1), lines
        assert lines[0].startswith("error: ")
        assert error in lines[0]
    assert not target.exists()
    assert (tmp_path / "file").read_text() == ""
    for arguments in [("--to", "mmf"), ("--to", "other", "--output", "x"), ("--output", "x")]:
        assert pack(source, *arguments)[0] == 2


def test_class_names(tmp_path, pack, server, monkeypatch):
    monkeypatch.setenv("VMB_D2_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(class_names, "CLASSES_URL", server.url)
    server.content = support.class_names_file(tmp_path).read_bytes()
    regions = support.some_regions()
    source = write(tmp_path / "in", "mmf", {"a": regions})
    expected = [f"thing {k}" for k in regions.objects]
    sources = {"url": server.url, "home": "~/classes.json"}
    for out, options in (("default", ()), *((k, ("--class-names", v)) for k, v in sources.items())):
        assert pack(source, "--to", "oscar", "--output", tmp_path / out, *options)[0] == 0
        assert labels(tmp_path / out) == expected
    assert len(server.requests) == 1
    few = support.class_names_file(tmp_path, 7)
    options = ["--class-names", few]
    status, _, lines = pack(source, "--to", "oscar", "--output", tmp_path / "few", *options)
    assert (status, lines) == (
        2,
        [f"error: {few} has 7 names, but there are 9 classes: give the file of their names"],
    )
    attributes = tmp_path / "attributes.txt"
    attributes.write_text("red\nblue\n")
    best = {"attrs_id": np.array([1] * 5), "attrs_conf": np.full(5, 0.5, np.float32)}
    source = write(tmp_path / "vg", "mmf", {"a": support.some_regions(**best)})
    options = ["--class-names", "none", "--attribute-names", attributes]
    assert pack(source, "--to", "oscar", "--output", tmp_path / "named", *options)[0] == 0
    _, content = (tmp_path / "named" / "oscar" / "labels.tsv").read_text().split("\t")
    found = [(label["class"], label["attributes"]) for label in json.loads(content)]
    assert found == [(f"class {k}", ["blue"]) for k in regions.objects]
    (store,) = manifest(tmp_path / "named")["stores"]
    assert (store.get("class_names"), store["attribute_names"]) == (None, str(attributes))
    server.files, server.content = {}, None
    monkeypatch.setenv("VMB_D2_CACHE", str(tmp_path / "empty"))
    status, _, lines = pack(source, "--to", "oscar", "--output", tmp_path / "few")
    assert (status, "can't be downloaded" in lines[-1]) == (2, True)
    assert not (tmp_path / "few").exists()


def test_the_names_that_the_manifest_records(tmp_path, pack):
    regions = support.some_regions(attrs_id=np.ones(5, int), attrs_conf=np.full(5, 0.5, np.float32))
    attributes = tmp_path / "attributes.txt"
    attributes.write_text("red\nblue\n")
    names = {
        "class_names": str(support.class_names_file(tmp_path)),
        "attribute_names": str(attributes),
    }
    model = {"box_convention": "vinvl", "num_classes": 10, "num_attributes": 2}

    def made(name, model, **names):
        source = write(tmp_path / name, "mmf", {name: regions})
        record = Manifest(source)
        record.begin({}, settings={"model": model}, stores=[{"format": "mmf", **names}])
        return source

    named, unnamed = made("named", model, **names), made("unnamed", model)
    status, _, (error,) = pack(unnamed, "--to", "oscar", "--output", tmp_path / "out")
    assert status == 2
    assert error.startswith(
        "error: --class-names is missing: the manifest has no file of the names"
    )
    status, _, (error,) = pack(named, unnamed, "--to", "oscar", "--output", tmp_path / "out")
    assert status == 2
    assert error.startswith("error: --class-names is missing: the classes or attributes of ")
    # Through a format without names.
    assert pack(named, "--to", "lmdb", "--output", tmp_path / "lmdb")[0] == 0
    for source, out in ((named, "oscar"), (tmp_path / "lmdb", "again")):
        assert pack(source, "--to", "oscar", "--output", tmp_path / out)[0] == 0
        assert labels(tmp_path / out) == [f"thing {k}" for k in regions.objects]
        content = (tmp_path / out / "oscar" / "labels.tsv").read_text()
        assert '"attributes": ["blue"]' in content
        assert manifest(tmp_path / out)["stores"][0].items() >= names.items()
    more = made("more", {**model, "num_attributes": 3}, **names)
    status, _, (error,) = pack(more, "--to", "oscar", "--output", tmp_path / "more")
    assert (status, "has 2 names, but there are 3 attributes" in error) == (2, True)


def test_damaged_images_are_status_1(tmp_path, source, images, pack):
    damaged = list(images)[0::3][:2]  # the first one, too
    for name in damaged:
        (source / f"{name}.npy").write_bytes(b"half")
        images.pop(name)
    for packed, before in ((38, 0), (0, 38)):
        status, lines, errors = pack(source, "--to", "mmf", "--output", tmp_path / "out")
        assert (status, errors) == (1, [])
        for name in damaged:
            assert any("failed: " in line and f"{name}.npy" in line for line in lines)
        assert f"{40 - before} of 40 images to pack" in lines
        assert lines[-1].endswith(f"{packed} packed, {before} there before, 2 failed")
        assert manifest(tmp_path / "out")["counts"]["failed"] == 2
        assert_images(read(tmp_path / "out", "mmf"), images)


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_after_a_signal_it_goes_on(tmp_path, source, images, pack, signum):
    target = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, str(source), "--to", "mmf", "--output", str(target)],
        cwd=support.ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while process.poll() is None and len(list(target.rglob("*.npy"))) < 10:
        time.sleep(0.005)
    process.send_signal(signum)
    err = process.communicate()[1]
    there = read(target, "mmf")
    assert 0 < len(there) < len(images)
    assert_images(there, {name: images[name] for name in there})
    if signum == signal.SIGKILL:
        assert process.returncode == -signum
    else:
        assert process.returncode == 128 + signum
        assert re.fullmatch("interrupted.*run the same command.*to go on\n", err)
        assert manifest(target)["runs"][0]["state"] == "interrupted"
        assert manifest(target)["counts"]["packed"] == len(there)
    status, lines, _ = pack(source, "--to", "mmf", "--output", target)
    assert status == 0
    assert lines[-1].endswith(f"{40 - len(there)} packed, {len(there)} there before, 0 failed")
    assert_images(read(target, "mmf"), images)
    assert manifest(target)["runs"][0]["state"] == (
        "died" if signum == signal.SIGKILL else "interrupted"
    )
