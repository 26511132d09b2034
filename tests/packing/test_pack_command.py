"""tools/pack.py: arguments, lines, exit statuses, the manifest, and its end at any moment."""

import argparse
import importlib
import json
import logging
import os
import random
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import support
from test_packing import assert_images, fill, read

from vmb_d2.stores import FORMATS
from vmb_d2.stores.fields import FIELDS
from vmb_d2.structures import class_names

# The command, with a pause before each image so that a signal meets it at work.
SLOW = """
import runpy, sys, time
from vmb_d2 import packing
from vmb_d2.stores import FORMATS
sys.path.insert(0, "tools")
packing.FLUSH_IMAGES = 4
reader = FORMATS["mmf"].reader
read = reader.read
reader.read = lambda self, name: time.sleep(0.02) or read(self, name)
sys.argv[0] = "pack.py"
runpy.run_path("tools/pack.py", run_name="__main__")
"""


@pytest.fixture
def pack(monkeypatch, capsys, caplog):
    """Runs the command in this process. Returns status, log lines, and stderr's lines."""
    monkeypatch.syspath_prepend(support.ROOT / "tools")
    module = importlib.import_module("pack")
    caplog.set_level(logging.INFO)

    def run(*arguments):
        caplog.clear()
        monkeypatch.setattr(sys, "argv", ["pack.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            sys.exit(module.program())
        return end.value.code, caplog.messages, capsys.readouterr().err.splitlines()

    return run


@pytest.fixture
def images():
    return {f"sub/x{i}": support.some_regions(i) for i in range(40)}


@pytest.fixture
def source(tmp_path, images):
    return fill(tmp_path / "in", "mmf", images)


def content(folder):
    return json.loads((folder / "manifest.json").read_text())


def test_as_users_run_it(tmp_path, source, images):
    target = tmp_path / "new" / "out"
    arguments = ("tools/pack.py", source, "--to", "mmf", "--output", target)
    done = support.run_tool(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "40 of 40 images to pack"
    assert lines[-1] == f"{target}: 40 packed, 0 there before, 0 failed"
    assert_images(read(target, "mmf"), images)
    manifest = content(target)
    assert manifest["packed_from"] == [str(source)]
    assert manifest["counts"] == {"packed": 40, "there_before": 0, "failed": 0}
    assert manifest["stores"] == [
        {"format": "mmf", "feature": None, "path": ".", "boxes_clipped": False}
    ]
    assert [run["state"] for run in manifest["runs"]] == ["finished"]


def test_help_names_every_option(pack, capsys):
    with pytest.raises(SystemExit) as end:
        importlib.import_module("pack").parser().parse_args(["--help"])
    text = capsys.readouterr().out
    assert end.value.code == 0
    for option in ("--to", "--output", "--from", "--dtype", "--duplicates", "--skip"):
        assert option in text
    assert "Exit status: 0; 1 if" in text


def test_the_documentation_names_every_option_and_format(pack):
    text = (support.ROOT / "docs" / "packing.md").read_text()
    parser = importlib.import_module("pack").parser()
    options = [o for a in parser._actions for o in a.option_strings if o.startswith("--")]
    assert isinstance(parser, argparse.ArgumentParser)
    for word in (*options, *FORMATS):
        assert word == "--help" or f"`{word}" in text, word


def test_the_documentation_says_what_is_kept():
    lines = (support.ROOT / "docs" / "packing.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if "|" in line]
    head = next(row for row in rows if row[0] == "format")
    assert head[-2:] == ["free keys", "float16"]
    said = {}
    for row in rows:
        if row[0].strip("`") in FORMATS and len(row) == len(head):
            cells = dict(zip(head, row, strict=True))
            keeps_dtype = FORMATS[row[0].strip("`")].writer.only_dtype is None
            assert (cells.pop("float16") == "yes") is keeps_dtype
            fields = [re.findall(r"\w+", k) for k, cell in cells.items() if cell == ""]
            said[row[0].strip("`")] = {field for some in fields for field in some}
    for name, fields in said.items():
        keeps = FORMATS[name].writer.keeps
        expected = set(FIELDS) - keeps | ({"free", "keys"} if "extra" not in keeps else set())
        assert fields == expected, name
    assert set(said) == set(FORMATS)


def test_one_line_and_status_2_before_anything_is_written(tmp_path, source, pack):
    target = tmp_path / "out"
    (tmp_path / "empty").mkdir()
    other = fill(tmp_path / "other", "mmf", {"sub/x3": support.some_regions()})
    (tmp_path / "file").write_text("")
    for arguments, error in [
        ((tmp_path / "none", "--output", target), "none: No such file"),
        ((tmp_path / "empty", "--output", target), "empty: no store"),
        ((source, "--output", source), "shares files with the source"),
        ((source, other, "--output", target), "1 names are in more than one source: sub/x3"),
        ((source, source, "--output", target), "40 names are in more than one source"),
        ((source, "--output", tmp_path / "file"), "file"),
        ((source, "--output", tmp_path / "file" / "below"), "file"),
    ]:
        status, _, lines = pack("--to", "mmf", *arguments)
        assert (status, len(lines)) == (2, 1), lines
        assert lines[0].startswith("error: ")
        assert error in lines[0]
    assert not target.exists()
    assert (tmp_path / "file").read_text() == ""
    for arguments in [("--to", "mmf"), ("--to", "other", "--output", "x"), ("--output", "x")]:
        assert pack(source, *arguments)[0] == 2


def test_the_first_of_duplicates(tmp_path, source, images, pack):
    other = fill(tmp_path / "other", "mmf", {n: support.some_regions(99) for n in ("sub/x3", "y")})
    target = tmp_path / "out"
    status, lines, _ = pack(
        source, other, "--to", "mmf", "--output", target, "--duplicates", "first"
    )
    assert status == 0
    assert "1 images passed over: an earlier source has their name" in lines
    assert_images(read(target, "mmf"), {**images, "y": support.some_regions(99)})


def labels(folder):
    """The class names of the single image in a store of oscar."""
    _, content = (folder / "oscar" / "labels.tsv").read_text().split("\t")
    return [label["class"] for label in json.loads(content)]


def test_class_names(tmp_path, pack, server, monkeypatch):
    monkeypatch.setenv("VMB_D2_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(class_names, "CLASSES_URL", server.url)
    file = support.class_names_file(tmp_path)
    server.content = file.read_bytes()
    regions = support.some_regions()
    source = fill(tmp_path / "in", "mmf", {"a": regions})
    expected = [f"thing {k}" for k in regions.objects]
    monkeypatch.setenv("HOME", str(tmp_path))
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
    assert not (tmp_path / "few").exists()
    assert pack(source, "--to", "lmdb", "--output", tmp_path / "few", *options)[0] == 0


def test_without_a_network_oscar_needs_a_file_of_class_names(
    tmp_path, source, pack, server, monkeypatch
):
    monkeypatch.setenv("VMB_D2_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(class_names, "CLASSES_URL", server.url)
    server.faults = [404]
    status, _, lines = pack(source, "--to", "oscar", "--output", tmp_path / "out")
    assert status == 2
    assert lines[-1].startswith(f"error: {server.url}: can't be downloaded (HTTP 404")
    assert lines[-1].endswith(", or give a file with --class-names")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("background", [True, False])
def test_the_background_is_where_the_sources_settings_say(tmp_path, pack, background):
    """Of a source without probabilities, nothing else tells."""
    regions = support.some_regions(cls_prob=None, objects=np.array([0, 1, 2, 0, 8]))
    source = fill(tmp_path / "in", "mmf", {"a": regions})
    record = {"settings": {"regions": {"background": background}}}
    (source / "manifest.json").write_text(json.dumps(record))
    names = ["--class-names", support.class_names_file(tmp_path)]
    assert pack(source, "--to", "oscar", "--output", tmp_path / "out", *names)[0] == 0
    first = ["background", "thing 0"] if background else ["thing 0", "thing 1"]
    assert labels(tmp_path / "out")[:2] == first
    source = fill(tmp_path / "whole", "mmf", {"a": support.some_regions(classes=10)})
    (source / "manifest.json").write_text(json.dumps(record))
    assert pack(source, "--to", "uniter", "--output", tmp_path / "out")[0] == 0
    with np.load(tmp_path / "out" / "uniter" / "a.npz") as file:
        assert file["soft_labels"].shape == (5, 10 if background else 11)


def test_the_store_of_an_output_folder_by_its_format(tmp_path, pack):
    source = fill(tmp_path / "in", "mmf", {n: support.some_regions() for n in "ab"})
    everything = tmp_path / "all"
    names = ["--class-names", support.class_names_file(tmp_path)]
    for name in FORMATS:
        assert pack(source, "--to", name, "--output", everything, *names)[0] == 0
    assert len(content(everything)["stores"]) == len(FORMATS)
    status, _, lines = pack(everything, "--to", "mmf", "--output", tmp_path / "out")
    assert status == 2
    assert "several stores" in lines[0]
    for name in FORMATS:
        out = tmp_path / "out" / name
        assert pack(everything, "--from", name, "--to", "mmf", "--output", out)[0] == 0
        assert sorted(read(out, "mmf")) == ["a", "b"]


def test_damaged_images_are_status_1(tmp_path, source, images, pack):
    (source / "sub" / "x3.npy").write_bytes(b"half")
    status, lines, errors = pack(source, "--to", "mmf", "--output", tmp_path / "out")
    assert (status, errors) == (1, [])
    assert any("failed: " in line and "x3.npy" in line for line in lines)
    assert lines[-1].endswith("39 packed, 0 there before, 1 failed")
    assert content(tmp_path / "out")["counts"]["failed"] == 1
    images.pop("sub/x3")
    assert_images(read(tmp_path / "out", "mmf"), images)
    status, lines, _ = pack(source, "--to", "mmf", "--output", tmp_path / "out")
    assert status == 1
    assert lines[0] == "1 of 40 images to pack"
    assert lines[-1].endswith("0 packed, 39 there before, 1 failed")


def test_what_is_left_out_is_named_and_no_failure(tmp_path, pack):
    images = {n: support.some_regions() for n in ("a", "a/b", "x_9", "9")}
    source = fill(tmp_path / "in", "mmf", images | {"none": support.some_regions(count=0)})
    out = tmp_path / "out"
    status, _, (error,) = pack(source, "--to", "hdf5", "--output", out)
    assert status == 2
    assert "1 names can't be stored as hdf5: a/b (is below a" in error
    assert error.endswith("(--skip leaves such images out)")
    status, lines, errors = pack(source, "--to", "hdf5", "--output", out, "--skip")
    assert (status, errors) == (0, [])
    assert "hdf5: 1 images left out: a (a/b, an image too, is below it)" in lines
    assert lines[-1] == f"{out / 'features.h5'}: 4 packed, 0 there before, 0 failed, 1 left out"
    assert sorted(read(out / "features.h5", "hdf5")) == ["9", "a/b", "none", "x_9"]
    assert content(out)["counts"] == {"packed": 4, "there_before": 0, "failed": 0, "left_out": 1}
    status, lines, _ = pack(source, "--to", "butd_tsv", "--output", out, "--skip")
    assert (status, lines[-1].endswith("4 packed, 0 there before, 0 failed, 1 left out")) == (
        0,
        True,
    )
    status, lines, _ = pack(source, "--to", "lmdb", "--output", out, "--skip")
    assert (status, lines[-1].endswith("5 packed, 0 there before, 0 failed")) == (0, True)
    assert any(line.startswith("lmdb: 1 names for which MMF's reader takes") for line in lines)


def test_a_full_disk_is_one_line(tmp_path, source, pack):
    fill(source, "mmf", {"sub/z": support.some_regions(dimension=100_000)})
    with support.file_size_limit(1 << 20):
        status, _, lines = pack(source, "--to", "mmf", "--output", tmp_path / "out")
    assert (status, len(lines)) == (2, 1)
    assert "z.npy: can't be written: File too large" in lines[0]
    assert content(tmp_path / "out")["runs"][0]["state"] == "failed"
    status, lines, _ = pack(source, "--to", "mmf", "--output", tmp_path / "out")
    assert lines[-1].endswith("1 packed, 40 there before, 0 failed")


def test_a_vanished_source_is_one_line(tmp_path, source, pack, monkeypatch):
    def vanish(self, name):
        os.rename(source, tmp_path / "elsewhere")
        return read_one(self, name)

    reader = FORMATS["mmf"].reader
    read_one = reader.read
    monkeypatch.setattr(reader, "names", lambda self: iter(["sub/x1", "sub/x2"]))
    monkeypatch.setattr(reader, "read", lambda self, name: read_one(self, name))
    monkeypatch.setattr(FORMATS["mmf"].writer, "flush", lambda self: None)
    write = FORMATS["mmf"].writer.write

    def vanishing_write(self, name, regions):
        write(self, name, regions)
        monkeypatch.setattr(reader, "read", vanish)

    monkeypatch.setattr(FORMATS["mmf"].writer, "write", vanishing_write)
    status, _, lines = pack(source, "--to", "mmf", "--output", tmp_path / "out")
    assert (status, lines) == (2, [f"error: {source}: is gone"])
    assert (tmp_path / "out" / "sub" / "x1.npy").exists()


def test_float16(tmp_path, source, pack):
    out = tmp_path / "out"
    assert pack(source, "--to", "mmf", "--output", out, "--dtype", "float16")[0] == 0
    assert {r.features.dtype for r in read(out, "mmf").values()} == {np.dtype("float16")}
    assert pack(out, "--to", "mmf", "--output", tmp_path / "again")[0] == 0
    assert read(tmp_path / "again", "mmf")["sub/x1"].features.dtype == np.float16


def with_manifest(folder, settings, name="a"):
    fill(folder, "mmf", {name: support.some_regions()})
    (folder / "manifest.json").write_text(json.dumps({"settings": settings}))
    return folder


def test_settings_go_along(tmp_path, pack):
    settings = {"dtype": "float32", "model": {"depth": 50}, "names": "mmf"}
    one = with_manifest(tmp_path / "one", settings)
    two = with_manifest(tmp_path / "two", settings, "b")
    none = fill(tmp_path / "none", "mmf", {"c": support.some_regions()})
    out = tmp_path / "out"
    arguments = (one, two, none, "--to", "mmf", "--output", out, "--dtype", "float16")
    assert pack(*arguments)[0] == 0
    # Such as have no precision in writing come from before there was a choice.
    assert content(out)["settings"] == {**settings, "dtype": "float16", "precision": "fp32"}
    assert pack(*arguments)[0] == 0  # again, although the dtype differs
    assert len(content(out)["runs"]) == 2


def test_different_settings_are_refused(tmp_path, pack):
    one = with_manifest(tmp_path / "one", {"model": {"depth": 50}})
    two = with_manifest(tmp_path / "two", {"model": {"depth": 101}}, "b")
    out = tmp_path / "out"
    status, _, lines = pack(one, two, "--to", "mmf", "--output", out)
    assert (status, len(lines)) == (2, 1)
    assert "model.depth: 50 there, 101 now" in lines[0]
    assert not out.exists()
    assert pack(one, "--to", "mmf", "--output", out)[0] == 0
    status, _, lines = pack(two, "--to", "mmf", "--output", out)  # the target's count, too
    assert status == 2
    assert pack(one, two, "--to", "mmf", "--output", out, "--allow-mismatch")[0] == 0
    assert content(out)["settings"] == {}
    assert sorted(read(out, "mmf")) == ["a", "b"]


def test_the_manifest_of_one_of_several_features(tmp_path, pack):
    folder = tmp_path / "run"
    folder.mkdir()
    fill(folder / "fc7", "mmf", {"a": support.some_regions()})
    (folder / "manifest.json").write_text(json.dumps({"settings": {"names": "mmf"}}))
    assert pack(folder / "fc7", "--to", "mmf", "--output", tmp_path / "out")[0] == 0
    assert content(tmp_path / "out")["settings"]["names"] == "mmf"


def test_a_folder_that_another_run_has(tmp_path, source, pack):
    from vmb_d2.output.lock import sole_use

    with sole_use(tmp_path / "out"):
        status, _, lines = pack(source, "--to", "mmf", "--output", tmp_path / "out")
    assert (status, len(lines)) == (2, 1)
    assert "another run" in lines[0]


def begun(source, target, least):
    """Start the slow command, and wait until some images are there."""
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, str(source), "--to", "mmf", "--output", str(target)],
        cwd=support.ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while process.poll() is None and len(list(target.rglob("*.npy"))) < least:
        time.sleep(0.005)
    return process


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_keeps_what_is_whole(tmp_path, source, images, pack, signum):
    target = tmp_path / "out"
    process = begun(source, target, 10)
    process.send_signal(signum)
    err = process.communicate()[1]
    assert err == "interrupted: run the same command again to go on\n"
    assert process.returncode == 128 + signum
    there = read(target, "mmf")
    assert 0 < len(there) < len(images)
    assert_images(there, {name: images[name] for name in there})
    assert content(target)["runs"][0]["state"] == "interrupted"
    assert content(target)["counts"]["packed"] == len(there)
    status, lines, _ = pack(source, "--to", "mmf", "--output", target)
    assert status == 0
    assert lines[-1].endswith(f"{40 - len(there)} packed, {len(there)} there before, 0 failed")
    assert_images(read(target, "mmf"), images)


def test_killed_it_goes_on(tmp_path, source, images, pack):
    target = tmp_path / "out"
    chance = random.Random(1)
    for least in (4, 30):
        process = begun(source, target, least)
        time.sleep(chance.random() * 0.05)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        there = read(target, "mmf")
        assert_images(there, {name: images[name] for name in there})
    status, lines, _ = pack(source, "--to", "mmf", "--output", target)
    assert status == 0
    assert lines[-1].endswith(f"{len(there)} there before, 0 failed")
    assert_images(read(target, "mmf"), images)
    assert content(target)["runs"][0]["state"] == "died"
