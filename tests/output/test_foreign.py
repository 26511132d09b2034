"""Outputs that a run finds in its folder and that none of its recorded runs has made."""

import contextlib
import json
import os
import time

import numpy as np
import pytest
from fakes import FakeExtractor, small_images
from jobs import failures, manifest, run

from vmb_d2.config import VMBModel
from vmb_d2.engine.job import ExtractionJob
from vmb_d2.errors import ConfigError, OutputError
from vmb_d2.output.shards import Shard

FOLDERS = ["mmf", "npz"]
TAKEN = "images from elsewhere are in this folder: taken as they are"


@pytest.fixture
def images(tmp_path):
    return small_images(tmp_path / "in", 5)


@pytest.fixture(autouse=True)
def _log(caplog):
    caplog.set_level("INFO")


def stored(folder, images, seed=5, **values):
    """Images stored by another program: with other features, and without a manifest."""
    run(folder, images, FakeExtractor(seed), **values)
    (folder / "manifest.json").unlink()


def no_weights():
    raise ConfigError("no weights")


def contents(folder):
    files = (p for p in folder.iterdir() if p.suffix in (".npy", ".npz"))
    return {p.name: p.read_bytes() for p in files}


def aged(folder, names=None):
    """As if its files had been there for long."""
    then = time.time() - 1000
    for name in names or os.listdir(folder):
        os.utime(folder / name, (then, then))


def cut(path):
    path.write_bytes(path.read_bytes()[:-20])


def spoil(path):
    """Whole, but with a value that isn't finite."""
    with np.load(path, allow_pickle=True) as file:
        values = dict(file)
    values["x"][1, 2] = np.nan
    np.savez(path, **values)


@pytest.mark.parametrize("name", ["mmf", "lmdb", "hdf5"])
def test_whole_ones_are_taken_and_counted_once(tmp_path, images, name, caplog):
    out = tmp_path / "out"
    stored(out, images[:3], formats=[name])
    aged(out)
    caplog.clear()
    report = run(out, images, formats=[name])
    assert (report.extracted, report.skipped) == (2, 3)
    assert caplog.messages.count(f"3 {TAKEN}") == 1
    caplog.clear()
    assert run(out, images, formats=[name]).skipped == 5
    assert TAKEN not in caplog.text


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("image_001.npy", cut),
        ("image_001_info.npy", cut),
        ("image_001.npz", spoil),
    ],
)
@pytest.mark.parametrize("record", [True, False])
def test_damaged_ones_are_done_anew(tmp_path, images, file, damage, record, caplog):
    out = tmp_path / "out"
    run(out, images, formats=FOLDERS)
    before = contents(out)
    if not record:
        (out / "manifest.json").unlink()
    damage(out / file)
    caplog.clear()
    report = run(out, images, formats=FOLDERS)
    assert (report.extracted, report.skipped) == (1, 4)
    assert contents(out) == before
    assert "damaged in this folder, and done anew: 1 images: image_001: " in caplog.text
    assert (f"4 {TAKEN}" in caplog.text) == (not record)
    assert run(out, images, formats=FOLDERS).skipped == 5


@pytest.mark.parametrize("shard", [None, Shard("", 2, 1)])
def test_damaged_ones_stay_to_be_done_whatever_comes_between(tmp_path, images, shard):
    """A run that can't load its model, and one that is ended at once, leave no record of them."""

    def end(batch):
        raise KeyboardInterrupt

    out = tmp_path / "out"
    stored(out, images, formats=["mmf"])
    cut(out / "image_001.npy")
    cut(out / "image_003.npy")
    with pytest.raises(ConfigError):
        ExtractionJob(out, shard=shard).run(images, no_weights)
    with contextlib.suppress(KeyboardInterrupt):
        run(out, images, FakeExtractor(before_batch=end), shard, own=list(images), formats=["mmf"])
    report = run(out, images, shard=shard, own=list(images), formats=["mmf"])
    assert (report.extracted, report.skipped) == (2, 3)


def test_others_that_come_later_are_counted_once(tmp_path, images, caplog):
    out = tmp_path / "out"
    run(out, images[:2], formats=["mmf"])
    stored(tmp_path / "other", images[2:4], formats=["mmf"])
    for path in (tmp_path / "other").glob("*.npy"):
        path.rename(out / path.name)
    caplog.clear()
    report = run(out, images[:4], formats=["mmf"])
    assert (report.extracted, report.skipped) == (0, 4)
    assert caplog.messages.count(f"2 {TAKEN}") == 1
    caplog.clear()
    run(out, images, formats=["mmf"])
    assert TAKEN not in caplog.text


def test_those_of_a_run_that_died_are_its_own(tmp_path, images, caplog):
    out = tmp_path / "out"
    run(out, images[:2], formats=["mmf"])
    content = manifest(out)
    content["runs"][-1]["state"] = "running"
    (out / "manifest.json").write_text(json.dumps(content))
    aged(out, ["manifest.json"])
    with pytest.raises(ConfigError):
        run(out, images, formats=["mmf"], load=no_weights)
    report = run(out, images, formats=["mmf"], foreign="redo")
    assert (report.extracted, report.skipped) == (3, 2)
    assert "elsewhere" not in caplog.text


def test_older_ones_are_seen_when_a_run_comes_to_them(tmp_path, images, caplog):
    """First a try with a few images, or another shard, in a folder that others are in."""
    out = tmp_path / "out"
    stored(out, images[1:], formats=["mmf"])
    cut(out / "image_003.npy")
    aged(out)
    run(out, images[:2], formats=["mmf"])
    caplog.clear()
    report = run(out, images, formats=["mmf"])
    assert (report.extracted, report.skipped) == (1, 4)
    assert f"2 {TAKEN}" in caplog.messages


def test_shards_look_at_their_own_images(tmp_path, images, caplog):
    out = tmp_path / "out"
    stored(out, images, formats=["mmf"])
    cut(out / "image_001.npy")
    cut(out / "image_004.npy")
    for index, (own, taken) in enumerate([(images[:2], 1), (images[2:], 2)]):
        shard = Shard("", 2, index)
        caplog.clear()
        report = run(out, images, own=own, formats=["mmf"], shard=shard)
        assert (report.extracted, report.skipped) == (1, taken)
        assert f"{taken} {TAKEN}" in caplog.text
        caplog.clear()
        assert run(out, images, own=own, formats=["mmf"], shard=shard).extracted == 0
        assert TAKEN not in caplog.text


@pytest.mark.parametrize("name", FOLDERS)
def test_redo_replaces_them_once(tmp_path, images, name):
    out = tmp_path / "out"
    stored(out, images[:3], formats=[name])
    run(tmp_path / "expected", images, formats=[name])
    report = run(out, images, formats=[name], foreign="redo")
    assert (report.extracted, report.skipped) == (5, 0)
    assert contents(out) == contents(tmp_path / "expected")
    assert run(out, images, formats=[name], foreign="redo").skipped == 5


def test_redo_leaves_all_as_it_is_until_the_model_is_there(tmp_path, images):
    out = tmp_path / "out"
    stored(out, images, formats=["mmf"])
    before = contents(out)
    with pytest.raises(ConfigError):
        ExtractionJob(out, foreign="redo").run(images, no_weights)
    assert contents(out) == before


@pytest.mark.parametrize("name", ["lmdb", "hdf5"])
def test_in_one_file_they_cant_be_replaced(tmp_path, images, name):
    out = tmp_path / "out"
    stored(out, images[:3], formats=[name])
    before = files_in(out)
    with pytest.raises(OutputError, match=r"can't be replaced, as 'image_000'.*redo\): move it"):
        run(out, images, formats=[name], foreign="redo")
    assert files_in(out) == before
    assert run(out, images[3:], formats=[name], foreign="redo").extracted == 2


def files_in(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_features_of_another_dimension(tmp_path, images):
    out = tmp_path / "out"
    stored(out, images[:2], formats=["mmf"])
    before = contents(out)
    with pytest.raises(OutputError, match=r"of dimension 16, this model's have 1024.*redo;.*allow"):
        ExtractionJob(out).run(images[:2], lambda: pytest.fail("loaded"), VMBModel(fpn=True))
    other = FakeExtractor()
    other.model.feature_dimension = 99
    with pytest.raises(OutputError, match="of dimension 16, this model's have 99"):
        run(out, images, other, formats=["mmf"])
    assert contents(out) == before
    assert failures(out) == []
    assert run(out, images, other, formats=["mmf"], allow_mismatch=True).skipped == 2
