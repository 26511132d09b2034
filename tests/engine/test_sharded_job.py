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
from PIL import Image

from vmb_d2.data.image_list import list_images, name_images
from vmb_d2.engine.pipeline import MOST_UNWRITTEN
from vmb_d2.errors import InputError, OutputError
from vmb_d2.output.shards import Shard
from vmb_d2.output.store_set import StoreSet
from vmb_d2.stores import FORMATS
from vmb_d2.utils import lease as leases
from vmb_d2.utils.interruption import Interrupted
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


def test_each_shard_goes_on_by_itself(images, out):
    run(out, images, shard=FIRST)
    settings = manifest(out, FIRST)["settings"]
    report = run(out, images, shard=FIRST, load=no_load)
    assert manifest(out, FIRST)["settings"] == settings
    assert (report.extracted, report.skipped) == (0, 3)
    assert run(out, images, shard=SECOND).extracted == 4
    assert [r["state"] for r in manifest(out, FIRST)["runs"]] == ["finished"] * 2
    assert manifest(out, FIRST)["counts"] == {"images": 3, "done": 3, "failed": 0}


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


def test_a_whole_run_and_shards_have_to_agree_too(images, out):
    run(out, images, shard=FIRST)
    with pytest.raises(OutputError, match="other settings: weights_sha256"):
        run(out, images, extractor=FakeExtractor(1), formats=["mmf"])
    run(out, images, formats=["mmf"])
    with pytest.raises(OutputError, match="other settings: weights_sha256"):
        run(out, images, shard=SECOND, extractor=FakeExtractor(1))
    assert [r["state"] for r in manifest(out)["runs"]] == ["finished"]


def test_each_shard_has_its_own_failures(images, out):
    os.unlink(images[5].path)
    for shard in SHARDS:
        run(out, images, shard=shard)
    assert [p.relative_to(out).as_posix() for p in out.rglob("failures.jsonl")] == [
        "shards/1-of-2/failures.jsonl"
    ]
    (line,) = (SECOND.folder(out) / "failures.jsonl").read_text().splitlines()
    assert json.loads(line)["name"] == images[5].name
    assert manifest(out, SECOND)["counts"] == {"images": 4, "done": 3, "failed": 1}
    assert manifest(out, FIRST)["counts"] == {"images": 3, "done": 3, "failed": 0}


def test_the_same_shard_at_the_same_time_is_refused(images, out):
    def again(batch):
        with pytest.raises(OutputError, match=rf"shard 1-of-2 .*process {os.getpid()} on"):
            run(out, images, shard=SECOND)
        with pytest.raises(OutputError, match=rf"another run .*process {os.getpid()} on"):
            run(out, images, formats=["mmf"])
        refused.append(batch)

    refused = []
    run(out, images, shard=SECOND, extractor=FakeExtractor(before_batch=again))
    assert len(refused) == 4
    assert len(manifest(out, SECOND)["runs"]) == 1


@pytest.mark.parametrize("taken", ["replaced", "removed"])
@pytest.mark.parametrize("shard", [SECOND, None], ids=["shard", "whole"])
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
    run_ = last_run(out, shard)
    if taken == "replaced":
        assert run_["state"] == "running"  # what is in writing from now on is the other's
    else:
        assert expected[taken] in run_["error"]
    assert read(lease) == ({"pid": 5, "host": "far"} if taken == "replaced" else None)


def test_what_was_done_stays_in_writing_until_it_is_counted_again(images, out, monkeypatch):
    def damaged(stores, names):
        counts.append(manifest(out, SECOND)["counts"])
        raise OutputError("damaged")

    counts = []
    before = {"images": 4, "done": 4, "failed": 0}
    run(out, images, shard=SECOND)
    monkeypatch.setattr(StoreSet, "present", damaged)
    with pytest.raises(OutputError, match="damaged"):
        run(out, images, shard=SECOND)
    assert counts == [before]
    assert last_run(out, SECOND)["state"] == "failed"
    assert manifest(out, SECOND)["counts"] == before


def test_a_run_that_lost_its_lease_at_the_end_is_an_error(images, out):
    def take(batch):
        lease.write_text("")  # as if it were just being written
        lease.unlink()
        lease.write_text(json.dumps({"pid": 5, "host": "far"}))

    lease = SECOND.folder(out) / "running.json"
    real = StoreSet.flush
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StoreSet, "flush", lambda self: (real(self), take(None)))
        with pytest.raises(OutputError, match="lost to process 5 on far"):
            run(out, images[:2], shard=Shard("", 2, 1))
    assert last_run(out, SECOND)["state"] == "running"


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


def test_the_record_of_a_shard_from_its_beginning(images, out, monkeypatch):
    def load():
        found = manifest(out, SECOND)
        (entry,) = found["runs"]
        assert entry["state"] == "running"
        assert entry["job"] == "17_1"
        assert "device" not in entry
        assert found["counts"] == {"images": 4, "done": 0, "failed": 0}
        assert found["shard"] == SECOND.describe(images)
        assert found["settings"]["dtype"] == "float32"
        assert found["settings"]["weights_sha256"] is None
        assert not (out / "manifest.json").exists()
        return FakeExtractor(before_batch=batch)

    def batch(images):
        found = manifest(out, SECOND)
        (entry,) = found["runs"]
        assert (entry["state"], entry["device"], entry["mismatch"]) == ("running", "cpu", [])
        assert len(found["settings"]["weights_sha256"]) == 64
        batches.append(found)

    batches = []
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "17")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "1")
    run(out, images, shard=SECOND, load=load)
    assert len(batches) == 4
    (entry,) = manifest(out, SECOND)["runs"]
    assert (entry["state"], entry["extracted"], entry["device"]) == ("finished", 4, "cpu")
    assert "error" not in entry


@pytest.mark.parametrize(
    ("error", "state", "text"),
    [
        (InputError("no such\nmodel"), "failed", "no such"),
        (RuntimeError(), "failed", "RuntimeError"),
        (KeyboardInterrupt(), "interrupted", None),
        (Interrupted(15), "interrupted", None),
        (SystemExit(3), "interrupted", None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_an_end_while_the_model_is_loaded_is_recorded(images, out, error, state, text):
    def load():
        raise error

    with pytest.raises(type(error)) as caught:
        run(out, images, shard=SECOND, load=load)
    assert caught.value is error
    (entry,) = manifest(out, SECOND)["runs"]
    assert (entry["state"], entry.get("error"), entry["extracted"]) == (state, text, 0)
    assert not (out / "manifest.json").exists()
    run(out, images, shard=SECOND)
    assert [r["state"] for r in manifest(out, SECOND)["runs"]] == [state, "finished"]


def test_an_input_that_grew_is_warned_of(images, out, caplog):
    run(out, images[:4], shard=FIRST)
    run(out, images[:4], shard=FIRST)
    assert "the input is not what it was" not in caplog.text
    run(out, images, shard=FIRST)
    (warning,) = [r for r in caplog.records if "the input is not what it was" in r.message]
    assert warning.levelname == "WARNING"
    assert "4 images then and 7 now: some may have come into another shard" in warning.message
    assert str(FIRST.folder(out)) in warning.message
    assert manifest(out, FIRST)["shard"]["of_images"] == 7


class PaddingExtractor(FakeExtractor):
    """Its regions depend on the batch too, as the original's do."""

    def extract_batch(self, images, padded_size, boxes=None):
        self.padded_size = padded_size
        return super().extract_batch(images, padded_size, boxes)

    def _regions(self, image):
        regions = super()._regions(image)
        regions.features[0, :2] = self.padded_size
        return regions


def test_shards_of_whole_chunks_have_the_batches_of_one_run(tmp_path, out):
    (tmp_path / "in").mkdir()
    for i in range(22):
        size = (8 + 5 * i % 7, 6 + 3 * i % 8)
        Image.new("RGB", size, (i, 255 - i, 7 * i % 256)).save(tmp_path / f"in/{i:02}.png")
    images = name_images(list_images(tmp_path / "in"))
    options = {"batching": "mmf", "batch_size": 4, "formats": ["mmf", "lmdb"]}
    alone = PaddingExtractor()
    run(tmp_path / "alone", images, extractor=alone, **options)
    extractors = [PaddingExtractor() for _ in range(3)]
    shards = [Shard("", 3, index) for index in range(3)]
    for shard, extractor in zip(shards, extractors, strict=True):
        run(out, images, shard=shard, extractor=extractor, **options)
    batches = [size for extractor in extractors for size in extractor.batches]
    assert batches == alone.batches == [4, 4, 4, 4, 4, 2]
    found = contents(out, shards, formats=["mmf", "lmdb"])
    assert_same(found, contents(tmp_path / "alone", formats=["mmf", "lmdb"]))
    assert len({tuple(regions.features[0, :2]) for regions in found.values()}) > 3
