"""Shards of a run: together they leave what one run does, whatever befalls each of them."""

import json
import os
import re
import subprocess
import sys
import time

import pytest
import support
from fakes import FakeExtractor, small_images
from jobs import SOME_FORMATS, manifest, no_load, run

from vmb_d2.engine.pipeline import MOST_UNWRITTEN
from vmb_d2.errors import OutputError
from vmb_d2.output.shards import Shard
from vmb_d2.output.store_set import StoreSet
from vmb_d2.stores import FORMATS
from vmb_d2.utils import lease as leases
from vmb_d2.utils.lease import read

BOTH = ["fc6", "fc7"]
FIRST, SECOND = SHARDS = [Shard("", 2, 0), Shard("", 2, 1)]


def last_run(folder, shard):
    return manifest(folder, shard)["runs"][-1]


def contents(folder, shards=(None,), features=(), formats=SOME_FORMATS):
    """{(format, feature, image): its regions} of all stores of the shards."""
    found, of_shards = {}, []
    for shard in shards:
        for format_, feature, place in StoreSet(folder, formats, features, shard=shard).places():
            with format_.reader(folder / place) as reader:
                names = list(reader.names())
                assert len(set(names)) == len(names)
                keys = [(format_.name, feature, name) for name in names]
                of_shards += keys if format_.one_file else []
                found.update((key, reader.read(key[2])) for key in keys)
    assert len(set(of_shards)) == len(of_shards)  # each image is in the store of one shard
    return found


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for key in expected:
        support.assert_same_regions(found[key], expected[key])


@pytest.fixture
def images(tmp_path):
    return small_images(tmp_path / "in", 7)


def test_shards_together_are_one_run(tmp_path, images, out):
    shards = [Shard("", 3, index) for index in (2, 0, 1)]

    def extract(folder, shard=None):
        extractor = FakeExtractor(feature_names=BOTH)
        return run(folder, images, extractor, shard, formats=list(FORMATS))

    reports = [extract(out, shard) for shard in shards]
    assert [report.extracted for report in reports] == [3, 2, 2]
    extract(tmp_path / "alone")
    expected = contents(tmp_path / "alone", features=BOTH, formats=FORMATS)
    assert len(expected) == 7 * len(BOTH) * len(FORMATS)
    assert_same(contents(out, shards, BOTH, FORMATS), expected)
    files = [p.relative_to(tmp_path / "alone") for p in (tmp_path / "alone").rglob("*.np[yz]")]
    assert len(files) == 7 * 5 * len(BOTH)  # two an image for mmf
    assert sorted(p.relative_to(out) for p in out.rglob("*.np[yz]")) == sorted(files)
    assert all((out / f).read_bytes() == (tmp_path / "alone" / f).read_bytes() for f in files)
    assert sum(manifest(out, shard)["counts"]["done"] for shard in shards) == 7


def test_where_shards_have_what(images, out):
    for shard in SHARDS:
        run(out, images, shard=shard, formats=list(FORMATS))
    assert not [f.place for f in FORMATS.values() if f.one_file and (out / f.place).exists()]
    stores = {s["format"]: s["path"] for s in manifest(out, SECOND)["stores"]}
    assert stores.pop("mmf") == stores.pop("npz") == "."
    assert stores.pop("openvqa") == "openvqa"
    assert stores.pop("uniter") == "uniter"
    assert stores == {
        "lmdb": "shards/1-of-2/features.lmdb",
        "lxmert_tsv": "shards/1-of-2/lxmert.tsv",
        "butd_tsv": "shards/1-of-2/butd.tsv",
        "hdf5": "shards/1-of-2/features.h5",
        "vilbert": "shards/1-of-2/vilbert.lmdb",
        "oscar": "shards/1-of-2/oscar",
    }
    assert manifest(out, SECOND)["shard"] == SECOND.describe(images)
    assert manifest(out)["settings"] == manifest(out, SECOND)["settings"]
    assert (manifest(out)["runs"], manifest(out)["stores"]) == ([], [])
    assert list(out.rglob("running.json*")) == list(out.rglob("*.tmp")) == []


@pytest.mark.slow
def test_shards_that_die_and_die_again_beside_each_other(tmp_path, out):
    images = small_images(tmp_path / "in", 24)
    program = [sys.executable, "tests/support/programs/dying_job.py", tmp_path / "in", out, "6"]
    environment = {**os.environ, "PYTHONPATH": support.TEST_PATH}
    processes = [
        subprocess.Popen(
            [*map(str, program), str(seed), str(shard.index), str(shard.count)],
            cwd=support.ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed, shard in zip((2, 8), SHARDS, strict=True)  # both die early
    ]
    for process in processes:
        printed, _ = process.communicate(timeout=600)
        assert process.returncode == 0
        asked, deaths = map(int, re.search(r"asked (\d+), died (\d+)", printed).groups())
        assert deaths >= 1  # or it was never disturbed
        assert 12 <= asked <= 12 + 2 * deaths * (MOST_UNWRITTEN + 1)
    extractor = FakeExtractor(feature_names=BOTH)
    run(tmp_path / "alone", images, extractor, formats=list(FORMATS))
    expected = contents(tmp_path / "alone", features=BOTH, formats=FORMATS)
    assert_same(contents(out, SHARDS, BOTH, FORMATS), expected)
    for shard in SHARDS:
        runs = manifest(out, shard)["runs"]
        assert {r["state"] for r in runs[:-1]} <= {"died", "finished"}
        assert runs[-1]["state"] == "finished"
    assert [p for p in out.rglob("*") if p.suffix in (".tmp", ".journal")] == []


def test_more_shards_than_images(tmp_path, images, out):
    shards = [Shard("", 10, index) for index in range(10)]
    loads = []
    for shard in shards:
        run(out, images, shard=shard, load=lambda: loads.append(1) or FakeExtractor())
    assert len(loads) == 7
    empty = [s for s in shards if not s.share(images, images)]
    assert len(empty) == 3
    for shard in empty:
        assert manifest(out, shard)["counts"] == {"images": 0, "done": 0, "failed": 0}
        assert last_run(out, shard)["state"] == "finished"
    run(tmp_path / "alone", images)
    assert_same(contents(out, shards), contents(tmp_path / "alone"))


def test_another_shard_with_other_settings_is_refused(images, out):
    run(out, images, shard=FIRST)
    with pytest.raises(OutputError, match=r'dtype: "float32" there, "float16" now'):
        run(out, images, shard=SECOND, load=no_load, dtype="float16")
    with pytest.raises(OutputError, match="holds features of other settings: weights_sha256"):
        run(out, images, shard=SECOND, extractor=FakeExtractor(1))
    assert "other settings: weights_sha256" in last_run(out, SECOND)["error"]
    assert last_run(out, SECOND)["state"] == "failed"
    assert run(out, images, shard=SECOND).extracted == 4


def test_of_shards_that_begin_at_the_same_time_the_first_to_load_says_the_settings(images, out):
    def load():
        run(out, images, shard=FIRST, extractor=FakeExtractor(1))
        return FakeExtractor(2)

    with pytest.raises(OutputError, match="other settings: weights_sha256"):
        run(out, images, shard=SECOND, load=load)
    expected = manifest(out, FIRST)["settings"]
    assert manifest(out)["settings"] == expected
    assert last_run(out, SECOND)["state"] == "failed"
    run(out, images, shard=SECOND, extractor=FakeExtractor(1))
    assert manifest(out, SECOND)["settings"] == expected


@pytest.mark.parametrize(("shard", "taken"), [(SECOND, "replaced"), (None, "removed")])
def test_a_lost_lease_ends_the_run_before_the_next_write(images, out, shard, taken):
    def take(batch):
        if len(extractor.batches) == 2:
            extractor.wait_until_written()
            lease.unlink()
            if taken == "replaced":
                lease.write_text(json.dumps({"pid": 5, "host": "far"}))

    lease = (shard.folder(out) if shard else out) / "running.json"
    extractor = FakeExtractor(before_batch=take)
    expected = {"replaced": "lost to process 5 on far", "removed": "lost to nobody, it is gone"}
    with pytest.raises(OutputError, match=expected[taken]):
        run(out, images, shard=shard, extractor=extractor)
    assert len(extractor.batches) < 4 + MOST_UNWRITTEN
    assert len(contents(out, [shard])) == 2 * len(SOME_FORMATS)
    assert last_run(out, shard)["state"] == "running"  # what is recorded now is another's to say
    assert read(lease) == ({"pid": 5, "host": "far"} if taken == "replaced" else None)


def test_how_far_a_shard_is_shows_in_its_lease(images, out, monkeypatch):
    """As of the last write, which shows when the next sign of life is given."""

    def look(batch):
        done = max(len(extractor.batches) - 1, 0)
        end = time.monotonic() + 60
        while (note := read(path).get("note", {})).get("done") != done:
            assert time.monotonic() < end
            time.sleep(0.002)
        assert note.pop("seconds") >= 0
        assert note == {"images": 7, "done": done, "failed": 0, "extracted": done}

    path = Shard("", 1, 0).folder(out) / "running.json"
    monkeypatch.setattr(leases, "BEAT_SECONDS", 0.005)
    extractor = FakeExtractor(before_batch=look)
    run(out, images, shard=Shard("", 1, 0), extractor=extractor)
    assert len(extractor.batches) == 7
