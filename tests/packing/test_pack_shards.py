"""Packing what the shards of a run have left, elsewhere or into the folder in which they are."""

import json
import logging
import os
import random
import time

import deaths
import pytest
import support
from fakes import small_images
from jobs import manifest
from sharded import (
    THREE_PARTS,
    extract,
    note,
    place,
    shards,
    three_finished,
    together,
    write_shards,
)
from store_files import assert_images, kept, read, write

from vmb_d2.errors import ConfigError, InputError, OutputError, StoreError
from vmb_d2.output.lock import sole_use
from vmb_d2.output.open_stores import open_reader
from vmb_d2.output.shards import Shard
from vmb_d2.packing import packing
from vmb_d2.packing.job import pack
from vmb_d2.stores import FORMATS

IMAGES = together(THREE_PARTS)
BOTH = ["fc6", "fc7"]


@pytest.fixture
def out(tmp_path):
    return three_finished(tmp_path / "out")


@pytest.mark.slow
def test_two_shards_are_what_one_run_is(tmp_path):
    """Every format of every store, array by array."""
    features = BOTH
    images = small_images(tmp_path / "in", 7)
    extract(tmp_path / "one", images, list(FORMATS), feature_names=features)
    for shard in shards(2):
        extract(tmp_path / "out", images, list(FORMATS), shard, feature_names=features)
    for feature in features:
        one, out = tmp_path / "one" / feature, tmp_path / "out" / feature
        for name in FORMATS:
            with open_reader(out, name) as found, open_reader(one, name) as expected:
                assert sorted(found.names()) == sorted(expected.names())
            packed = tmp_path / "packed" / feature / name
            report = pack([out], name, packed, source_format=name)
            assert (report.packed, report.failures) == (7, {})
            place = FORMATS[name].place
            assert_images(read(packed / place, name), read(one / place, name))
            made_of, settings = (manifest(f)["settings"] for f in (packed, tmp_path / "one"))
            del settings["clip_boxes"]
            dtype = "float16" if name == "uniter" else "float32"
            dtype = FORMATS[name].writer.dtype_for(dtype).name
            assert made_of == settings | {"dtype": dtype}
            assert made_of["weights_sha256"]


@pytest.mark.parametrize(
    ("name", "target"), [("lmdb", "lmdb"), ("lxmert_tsv", "lxmert_tsv"), ("hdf5", "lmdb")]
)
def test_merged_in_place_and_again(out, name, target):
    write_shards(out, name, THREE_PARTS)
    expected = {n: kept(kept(r, name), target) for n, r in IMAGES.items()}
    store = out / FORMATS[target].place
    for packed, before in ((12, 0), (0, 12)):
        report = pack([out], target, out)
        assert (report.packed, report.there_before) == (packed, before)
        assert_images(read(store, target), expected)
        of_target = {"format": target, "feature": None, "path": FORMATS[target].place}
        clipped = FORMATS[target].clips_boxes
        assert manifest(out)["stores"] == [{**of_target, "boxes_clipped": clipped}]
    with open_reader(out, target) as reader:
        assert_images({n: reader.read(n) for n in reader.names()}, expected)


def test_in_place_to_files(out):
    name = "mmf"
    write_shards(out, "hdf5", THREE_PARTS)
    for packed in (12, 0):
        assert pack([out], name, out).packed == packed
    assert_images(read(out, name), {n: kept(r, "hdf5", name) for n, r in IMAGES.items()})
    with pytest.raises(ConfigError, match="shares files with the source"):
        pack([out], name, out, source_format=name)
    with pytest.raises(StoreError, match=r"holds several stores \(mmf, hdf5\)"):
        pack([out], "npz", out)


def test_one_feature_in_place(tmp_path):
    name = "lmdb"
    images = small_images(tmp_path / "in", 6)
    out = tmp_path / "out"
    for shard in shards(3):
        extract(out, images, [name], shard, feature_names=BOTH)
    before = manifest(out)
    for packed in (6, 0):
        assert pack([out / "fc7"], name, out / "fc7").packed == packed
    extract(tmp_path / "one", images, [name], feature_names=BOTH)
    store = FORMATS[name].place
    assert_images(read(out / "fc7" / store, name), read(tmp_path / "one" / "fc7" / store, name))
    settings = {k: v for k, v in before["settings"].items() if k != "clip_boxes"}
    assert manifest(out / "fc7")["settings"] == {**settings, "dtype": "float32"}
    assert manifest(out) == before
    with open_reader(out / "fc7") as reader:
        assert reader.merged is not None
        assert len(reader) == 6
    with pytest.raises(StoreError, match=r"take .*/fc6 or .*/fc7"):
        pack([out], name, out)


def test_merged_and_shards_together_are_packed_once(tmp_path, out):
    write_shards(out, "lmdb", THREE_PARTS)
    write(out / "features.lmdb", "lmdb", {**THREE_PARTS[0], "0/old": support.some_regions(99)})
    everything = {**IMAGES, "0/old": support.some_regions(99)}
    for target in ("hdf5", "lmdb"):
        assert pack([out], target, tmp_path / "packed").packed == 13
        expected = {n: kept(r, target) for n, r in everything.items()}
        assert_images(read(tmp_path / "packed" / FORMATS[target].place, target), expected)
    with pytest.raises(InputError, match="4 names are in more than one source: 0/x0"):
        pack([out / "features.lmdb", place(out, 0, 3, "lmdb")], "hdf5", tmp_path / "other")


def test_a_name_in_two_shards(tmp_path, out):
    again = {"0/x1": support.some_regions(70), "1/x0": support.some_regions(71)}
    write_shards(out, "lmdb", [*THREE_PARTS[:2], {**THREE_PARTS[2], **again}])
    with pytest.raises(InputError, match=r"2 names are in more than one source: 0/x1; 1/x0"):
        pack([out], "lmdb", out)
    assert not (out / "features.lmdb").exists()
    assert not (out / "running.json").exists()
    assert pack([out], "lmdb", out, duplicates="first").packed == 12
    assert_images(read(out / "features.lmdb", "lmdb"), IMAGES)


def warnings(caplog):
    return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]


def test_shards_that_are_not_finished_are_named(tmp_path, out, caplog):
    write_shards(out, "lmdb", THREE_PARTS)
    (out / "shards" / "0-of-4").mkdir()  # of a run that was refused
    pack([out], "hdf5", tmp_path / "a")
    assert warnings(caplog) == []
    for index, state in enumerate(("finished", "interrupted", "running", "failed", "died")):
        note(out, index, 7, state, source="train.5d41402a")
    (out / "shards" / "train.5d41402a.5-of-7").mkdir()
    note(out, 1, 3, "interrupted")
    pack([out], "hdf5", tmp_path / "b")
    (line,) = warnings(caplog)
    assert line.startswith(f"{out}: shards that are not finished: ")
    for name in ("1-of-3", *(f"train.5d41402a.{i}-of-7" for i in range(1, 7))):
        assert f"{name} (" in line
    assert line.count("-of-7") == 6
    assert "0-of-7" not in line
    assert "5d41402a.5-of-7 (not started); train.5d41402a.6-of-7 (not started)" in line
    assert len(read(tmp_path / "b" / "features.h5", "hdf5")) == 12  # it went on


def test_a_running_shard_is_named_and_a_run_without_shards_is_not(tmp_path, out, caplog):
    write_shards(out, "lmdb", THREE_PARTS)
    with sole_use(out, Shard("", 3, 1)):
        pack([out], "hdf5", tmp_path / "packed")
    assert warnings(caplog) == [f"{out}: shards that are not finished: 1-of-3 (running)"]
    caplog.clear()
    later = {"settings": {}, "runs": [{"state": "failed", "started": "2026-02-01T00:00:00+00:00"}]}
    (out / "manifest.json").write_text(json.dumps(later))
    pack([out], "hdf5", tmp_path / "packed")
    assert warnings(caplog) == []


def test_the_shards_own_manifests_are_compared(tmp_path, out):
    write_shards(out, "lmdb", THREE_PARTS)
    for index, depth in enumerate((None, 50, 101)):
        note(out, index, 3, settings={"model": depth and {"depth": depth}, "names": "mmf"})
    with pytest.raises(ConfigError) as caught:
        pack([out], "hdf5", tmp_path / "packed")
    text = str(caught.value)
    assert f"{out}/shards/2-of-3 was made with other settings than the sources before it" in text
    assert "model.depth: 50 there, 101 now" in text
    pack([out], "hdf5", tmp_path / "packed", allow_mismatch=True)
    assert manifest(tmp_path / "packed")["settings"] == {}


def test_what_one_shard_does_not_know_others_do(tmp_path, out):
    """A shard without an image to extract has loaded no model."""
    write_shards(out, "lmdb", THREE_PARTS)
    for index, weights in enumerate((None, "abc", None)):
        note(out, index, 3, settings={"weights_sha256": weights, "names": "mmf"})
    pack([out], "hdf5", tmp_path / "packed")
    expected = {"weights_sha256": "abc", "names": "mmf", "dtype": "float32"}
    assert manifest(tmp_path / "packed")["settings"] == expected
    pack([out], "hdf5", out)  # where no shard has noted what all have in common
    assert manifest(out)["settings"] == expected


def test_a_damaged_shard_ends_it_before_anything_is_written(out):
    write_shards(out, "hdf5", THREE_PARTS)
    place(out, 2, 3, "hdf5").write_bytes(b"damaged")
    with pytest.raises(StoreError, match=r"2-of-3/features\.h5"):
        pack([out], "hdf5", out)
    assert not (out / "features.h5").exists()


@pytest.mark.slow
def test_killed_in_place_it_goes_on(out, monkeypatch):
    target = "hdf5"
    monkeypatch.setattr(packing, "FLUSH_IMAGES", 2)
    reader = FORMATS["hdf5"].reader
    read_one = reader.read
    monkeypatch.setattr(reader, "read", lambda *args: time.sleep(0.05) or read_one(*args))
    parts = [{f"{part}/x{i}": support.some_regions(i) for i in range(10)} for part in range(3)]
    write_shards(out, "hdf5", parts)
    images = {n: kept(r, "hdf5", target) for part in parts for n, r in part.items()}
    store = out / FORMATS[target].place
    chance = random.Random(3)
    flush = FORMATS[target].writer.flush

    def work(send):
        def flush_and_tell(self):
            flush(self)
            send("flushed")

        monkeypatch.setattr(FORMATS[target].writer, "flush", flush_and_tell)
        pack([out], target, out)

    for _ in range(3):
        assert deaths.killed(work, 0.15 * chance.random(), after_first=True)
        with open_reader(out, "hdf5") as whole:  # what is merged in part isn't missing anything
            assert sorted(whole.names()) == sorted(images)
    there = read(store, target)
    assert 0 < len(there) < len(images)
    assert_images(there, {n: images[n] for n in there})
    report = pack([out], target, out)
    assert (report.packed, report.there_before) == (30 - len(there), len(there))
    assert_images(read(store, target), images)
    assert [r["state"] for r in manifest(out)["runs"]] == ["died"] * 3 + ["finished"]


def test_shards_go_on_after_packing_in_place(tmp_path):
    """Whatever the packed store's dtype is: the folder's settings are those of the shards."""
    target, dtype = "hdf5", "float16"
    images = small_images(tmp_path / "in", 6)
    out = tmp_path / "out"
    first, second = shards(2)
    extract(out, images, ["lmdb"], first)
    before = manifest(out)["settings"]
    assert pack([out], target, out, dtype=dtype, source_format="lmdb").packed == 3
    assert manifest(out)["settings"] == before
    assert extract(out, images, ["lmdb"], second).extracted == 3
    report = pack([out], target, out, dtype=dtype)
    assert (report.packed, report.there_before) == (3, 3)
    with pytest.raises(OutputError, match="weights_sha256"):
        extract(out, images, ["hdf5"], second, seed=1)


@pytest.mark.parametrize("target", ["lmdb", "hdf5"])
def test_what_was_merged_in_place_may_be_deleted(tmp_path, out, target):
    write_shards(out, "hdf5", THREE_PARTS)
    for index in range(3):
        note(out, index, 3, done=4, stores=[("hdf5", None)])
    last = place(out, 2, 3, "hdf5")
    os.rename(last, tmp_path / "later")
    note(out, 2, 3, "running", done=0, stores=[("hdf5", None)])
    assert pack([out], target, out).packed == 8
    place(out, 0, 3, "hdf5").unlink()
    os.rename(tmp_path / "later", last)
    note(out, 2, 3, done=4, stores=[("hdf5", None)])
    if target == "lmdb":  # of which nobody knows that it is made of the others
        with pytest.raises(StoreError, match=r"0-of-3/features\.h5: is missing"):
            pack([out], "mmf", tmp_path / "elsewhere", source_format="hdf5")
    report = pack([out], target, out)
    assert (report.packed, report.there_before) == (4, 4)
    store = out / FORMATS[target].place
    assert_images(read(store, target), {n: kept(r, "hdf5", target) for n, r in IMAGES.items()})
    with open_reader(out, target) as reader:
        assert len(reader) == 12


@pytest.mark.parametrize("feature", [None, "fc6"])
def test_a_folder_that_a_shard_is_writing_into(out, feature):
    stores = [("lmdb", None)] if feature is None else [("lmdb", "fc6"), ("lmdb", "fc7")]
    for index in range(3):
        note(out, index, 3, stores=stores)
    write_shards(out, "lmdb", THREE_PARTS, feature or ".")
    target = out / (feature or ".")
    with (
        sole_use(out, Shard("", 3, 1)),
        pytest.raises(OutputError, match="another run writes into it"),
    ):
        pack([target], "lmdb", target)
    assert not (target / "features.lmdb").exists()
    assert pack([target], "lmdb", target).packed == 12


def test_a_shards_store_is_no_target(out):
    write_shards(out, "lmdb", THREE_PARTS)
    shard = out / "shards" / "1-of-3"
    with pytest.raises(ConfigError, match=r"1-of-3/features\.lmdb: shares files with the source"):
        pack([out], "lmdb", shard)
    with pytest.raises(ConfigError, match="shares files with the source"):
        pack([place(out, 1, 3, "lmdb")], "lmdb", shard)
    pack([out], "lmdb", out)
    with pytest.raises(ConfigError, match=r"shares files with the source .*out/features\.lmdb"):
        pack([out / "features.lmdb"], "lmdb", out)
    with pytest.raises(StoreError, match=r"several stores \(lmdb, hdf5\)"):
        write(out / "features.h5", "hdf5", IMAGES)
        pack([out], "npz", out)
