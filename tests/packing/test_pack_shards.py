"""Packing what the shards of a run have left."""

import json
import logging

import pytest
import support
from fakes import small_images
from jobs import manifest
from packed import assert_images, kept, read
from sharded import (
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

from vmb_d2.errors import ConfigError, InputError, StoreError
from vmb_d2.output.lock import sole_use
from vmb_d2.output.open_stores import open_reader
from vmb_d2.output.shards import Shard
from vmb_d2.packing.job import pack
from vmb_d2.stores import FORMATS

IMAGES = together(THREE_PARTS)
BOTH = ["fc6", "fc7"]


@pytest.fixture
def out(tmp_path):
    return three_finished(tmp_path / "out")


@pytest.fixture(autouse=True)
def _lines(caplog):
    caplog.set_level(logging.INFO)


@pytest.mark.parametrize("features", [(), pytest.param(BOTH, marks=pytest.mark.slow)])
def test_two_shards_are_what_one_run_is(tmp_path, features):
    """Every format of every store, array by array."""
    images = small_images(tmp_path / "in", 7)
    extract(tmp_path / "one", images, list(FORMATS), feature_names=features)
    for shard in shards(2):
        extract(tmp_path / "out", images, list(FORMATS), shard, feature_names=features)
    for feature in features or ["."]:
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
    with pytest.raises(InputError) as caught:
        pack([out], "lmdb", out)
    assert str(caught.value) == (
        "2 names are in more than one source: 0/x1; 1/x0 (duplicates=first takes the first "
        "source's; shards share names where images came to the input between their runs)"
    )
    assert not (out / "features.lmdb").exists()
    assert not (out / "running.json").exists()
    assert pack([out], "lmdb", out, duplicates="first").packed == 12
    assert_images(read(out / "features.lmdb", "lmdb"), IMAGES)


def test_shards_that_also_another_source_has(tmp_path, out):
    write_shards(out, "lmdb", THREE_PARTS)
    other = write(tmp_path / "other.lmdb", "lmdb", {"1/x0": support.some_regions(50)})
    for sources in ([out, other], [other, out], [out, out]):
        with pytest.raises(InputError, match=r"names are in more than one source: .*1/x0"):
            pack(sources, "hdf5", tmp_path / "packed")
    pack([other, out], "mmf", tmp_path / "packed", duplicates="first")
    found = read(tmp_path / "packed", "mmf")
    assert_images(found, {**IMAGES, "1/x0": support.some_regions(50)})


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
    caplog.clear()
    write(out / "copy" / "features.lmdb", "lmdb", IMAGES)
    write(out / "features.lmdb", "lmdb", IMAGES)
    for alone in ("shards/1-of-3", "copy", "features.lmdb"):  # asked for by themselves
        pack([out / alone], "hdf5", tmp_path / "c")
    assert warnings(caplog) == []


def test_a_running_shard_is_named_and_a_run_without_shards_is_not(tmp_path, out, caplog):
    write_shards(out, "lmdb", THREE_PARTS)
    with sole_use(out, Shard("", 3, 1)):
        pack([out], "hdf5", tmp_path / "packed")
    assert warnings(caplog) == [f"{out}: shards that are not finished: 1-of-3 (running)"]
    caplog.clear()
    later = {"settings": {}, "runs": [{"state": "failed", "started": "2026-02-01T00:00:00+00:00"}]}
    (out / "manifest.json").write_text(json.dumps(later))
    pack([out], "hdf5", tmp_path / "packed")
    bare = write_shards(tmp_path / "no records", "lmdb", THREE_PARTS)
    pack([bare], "hdf5", tmp_path / "packed")
    assert warnings(caplog) == []


def test_unfinished_shards_of_formats_that_they_share(tmp_path, out, caplog):
    write(out, "mmf", IMAGES)
    (out / "shards" / "2-of-3" / "manifest.json").unlink()
    pack([out], "lmdb", out)
    assert warnings(caplog) == [f"{out}: shards that are not finished: 2-of-3 (not started)"]
    caplog.clear()
    write_shards(out, "hdf5", THREE_PARTS, "fc6")
    pack([out / "fc6"], "lmdb", tmp_path / "fc6")
    (line,) = warnings(caplog)
    assert line.endswith("fc6: shards that are not finished: 2-of-3 (not started)")


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
    expected = {"weights_sha256": "abc", "names": "mmf", "dtype": "float32", "precision": "fp32"}
    assert manifest(tmp_path / "packed")["settings"] == expected
    pack([out], "hdf5", out)  # where no shard has noted what all have in common
    assert manifest(out)["settings"] == expected


def test_a_damaged_shard_ends_it_before_anything_is_written(out):
    write_shards(out, "hdf5", THREE_PARTS)
    place(out, 2, 3, "hdf5").write_bytes(b"damaged")
    with pytest.raises(StoreError, match=r"2-of-3/features\.h5"):
        pack([out], "hdf5", out)
    assert not (out / "features.h5").exists()
