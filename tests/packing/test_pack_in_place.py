"""Packing what the shards of a run have left into the folder in which they are."""

import os
import random
import shutil
import time
from itertools import pairwise

import deaths
import pytest
import support
from fakes import small_images
from jobs import manifest
from packed import assert_images, kept, read
from sharded import (
    ONE_FILE,
    THREE_PARTS,
    extract,
    note,
    place,
    shards,
    three_finished,
    together,
    write,
    write_shards,
)

from vmb_d2.errors import ConfigError, OutputError, StoreError
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


@pytest.mark.parametrize(
    ("name", "target"), [*((name, name) for name in ONE_FILE), *pairwise(ONE_FILE)]
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


@pytest.mark.parametrize("name", ["mmf", "npz"])
def test_in_place_to_files(out, name):
    write_shards(out, "hdf5", THREE_PARTS)
    for packed in (12, 0):
        assert pack([out], name, out).packed == packed
    assert_images(read(out, name), {n: kept(r, "hdf5", name) for n, r in IMAGES.items()})
    with pytest.raises(ConfigError, match="shares files with the source"):
        pack([out], name, out, source_format=name)
    other = "npz" if name == "mmf" else "mmf"
    with pytest.raises(StoreError, match=rf"holds several stores \({name}, hdf5\)"):
        pack([out], other, out)


@pytest.mark.parametrize("name", ["lmdb", "butd_tsv"])
def test_one_feature_in_place(tmp_path, name):
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


@pytest.mark.slow
@pytest.mark.parametrize("target", ["hdf5", "npz"])
def test_killed_in_place_it_goes_on(out, monkeypatch, target):
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
    done = support.run_tool("tools/pack.py", out, "--to", target, "--output", out)
    assert (done.returncode, done.stderr) == (0, "")
    line = f"{store}: {30 - len(there)} packed, {len(there)} there before, 0 failed"
    assert done.stdout.splitlines()[-1] == line
    assert_images(read(store, target), images)
    assert [r["state"] for r in manifest(out)["runs"]] == ["died"] * 3 + ["finished"]


@pytest.mark.parametrize(("target", "dtype"), [("hdf5", "float16"), ("lxmert_tsv", None)])
def test_shards_go_on_after_packing_in_place(tmp_path, target, dtype):
    """Whatever the packed store's dtype is: the folder's settings are those of the shards."""
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
    if feature:  # also where a run has not come so far as to make the folder
        shutil.rmtree(target)
        sources = [place(out, index, 3, "lmdb", feature) for index in range(3)]
        assert pack(sources, "lmdb", target).packed == 12


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
