"""A run into an output folder: what is recorded, refused, retried, and left after a mishap.

With an extractor without a network; test_extract_app.py has the real one.
"""

import gc
import os
import shutil
import weakref

import pytest
import support
from fakes import FakeExtractor, small_images
from jobs import SOME_FORMATS, everything, failures, manifest, no_load, run, stored

from vmb_d2.data.given_boxes import GivenBoxes
from vmb_d2.data.image_list import list_images, name_images
from vmb_d2.engine.pipeline import MOST_UNWRITTEN
from vmb_d2.errors import ConfigError, InputError, OutputError, StoreError, TooManyFailures
from vmb_d2.output.open_stores import open_reader
from vmb_d2.output.shards import Shard
from vmb_d2.output.store_set import StoreSet
from vmb_d2.packing.job import pack
from vmb_d2.stores import FORMATS
from vmb_d2.utils.interruption import Interrupted

BOTH = ["fc6", "fc7"]


@pytest.fixture
def images(tmp_path):
    return small_images(tmp_path / "in", 5)


def test_every_format_in_one_pass(tmp_path, images):
    extractor = FakeExtractor()
    values = {"formats": list(FORMATS), "record": {"configuration": {"a": 1}}}
    report = run(tmp_path / "out", images, extractor, **values)
    assert (report.extracted, report.skipped, report.failed) == (5, 0, 0)
    assert extractor.batches == [1] * 5
    assert len(everything(tmp_path / "out", FORMATS)) == 5 * len(FORMATS)
    found = manifest(tmp_path / "out")
    assert found["configuration"] == {"a": 1}
    assert found["counts"] == {"images": 5, "done": 5, "failed": 0}
    assert [s["format"] for s in found["stores"]] == list(FORMATS)
    (entry,) = found["runs"]
    assert (entry["state"], entry["device"], entry["precision"]) == ("finished", "cpu", "fp32")
    assert entry["compile"] == "off"
    assert len(found["settings"]["weights_sha256"]) == 64


def test_nothing_is_loaded_where_nothing_is_to_do(out, images):
    run(out, images)
    before = manifest(out)
    report = run(out, images[:4], load=no_load, record={"command": "the last"})
    assert (report.skipped, report.extracted) == (4, 0)
    after = manifest(out)
    assert after["counts"] == {"images": 4, "done": 4, "failed": 0}
    assert [r["state"] for r in after["runs"]] == ["finished"] * 2
    assert (after["command"], after["settings"]) == ("the last", before["settings"])


@pytest.mark.parametrize(
    ("error", "state", "text"),
    [
        (InputError("no such\nmodel"), "failed", "no such"),
        (RuntimeError(), "failed", "RuntimeError"),
        (Interrupted(15), "interrupted", None),
        (SystemExit(3), "interrupted", None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_an_end_while_the_model_is_loaded_is_recorded(out, images, error, state, text):
    def load():
        raise error

    with pytest.raises(type(error)) as caught:
        run(out, images, load=load)
    assert caught.value is error
    (entry,) = manifest(out)["runs"]
    assert (entry["state"], entry.get("error"), entry["extracted"]) == (state, text, 0)
    run(out, images, dtype="float16", batching="mmf")  # the folder isn't bound to its settings
    assert [r["state"] for r in manifest(out)["runs"]] == [state, "finished"]


def test_what_was_done_stays_in_the_record_until_it_is_counted_again(out, images, monkeypatch):
    def damaged(stores, names):
        raise OutputError("damaged")

    run(out, images)
    monkeypatch.setattr(StoreSet, "present", damaged)
    with pytest.raises(OutputError, match="damaged"):
        run(out, images)
    assert manifest(out)["runs"][-1]["state"] == "failed"
    assert manifest(out)["counts"] == {"images": 5, "done": 5, "failed": 0}


@pytest.mark.parametrize("shards", [None, [Shard(count=2, index=i) for i in range(2)]])
def test_a_folder_that_cant_be_listed_is_a_failure_until_it_can(out, images, shards):
    """Also beside an image of its name; of one shard."""
    folder = os.path.dirname(images[0].path)
    loop = os.path.join(folder, "image_000")
    os.symlink(loop, loop)
    for again in range(2):
        listed = name_images(list_images(folder, recursive=True), folder=folder)
        counts = [run(out, listed, shard=shard) for shard in shards or [None]]
        assert sum(c.extracted for c in counts) == (0 if again else 5)
        found = [f for s in shards or [None] for f in failures(s.folder(out) if s else out)]
        reason = "Too many levels of symbolic links"
        failure = {"path": f"{loop}/", "name": "image_000/", "reason": reason, "stage": "read"}
        assert found == [failure]
    os.unlink(loop)
    for shard in shards or [None]:
        run(out, images, shard=shard, load=no_load)
        assert failures(shard.folder(out) if shard else out) == []


def test_boxes_outside_of_their_images_are_said_at_the_end(out, images, caplog):
    boxes = [[1, 1, 3, 3], [2, 2, 4, 4], [8, 1, 9, 3]]
    run(out, images, boxes=GivenBoxes([(i.name, boxes) for i in images[::4]], "boxes.json"))
    said = [line for line in caplog.messages if "boxes.json" in line]
    expected = "2 of 6 boxes lie wholly outside of their images, image_000; image_004"
    assert said == [f"boxes.json: {expected}"]


def test_another_format_is_added_without_touching_the_first(tmp_path, images):
    run(tmp_path / "out", images, formats=["mmf"])
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out").glob("*.npy")}
    report = run(tmp_path / "out", images)
    assert report.extracted == 5
    assert {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out").glob("*.npy")} == before
    assert len(everything(tmp_path / "out")) == 5 * len(SOME_FORMATS)


def test_several_features_have_a_folder_each(tmp_path, images):
    run(tmp_path / "one", images)
    run(tmp_path / "both", images, FakeExtractor(feature_names=BOTH))
    one = everything(tmp_path / "one")
    assert everything(tmp_path / "both" / "fc6") == one
    other = everything(tmp_path / "both" / "fc7")
    assert other.keys() == one.keys()
    assert all(other[key] != one[key] for key in one)
    places = {(s["feature"], s["path"]) for s in manifest(tmp_path / "both")["stores"]}
    assert ("fc7", "fc7") in places
    with pytest.raises(StoreError, match=r"folder of its own: take .*/both/fc6 or .*/both/fc7"):
        open_reader(tmp_path / "both", "mmf")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"options": {"num_features": 36}}, "regions.max_features: 100 there, 36 now"),
        ({"options": {"background": True}}, "regions.background: false there, true now"),
        ({"options": {"confidence_threshold": 0.2}}, "confidence_threshold: 0.0 there, 0.2 now"),
        ({"options": {"min_features": 10}}, 'regions.read_out: "mmf" there, "adaptive" now'),
        ({"seed": 1}, "weights_sha256"),
        ({"dtype": "float16"}, 'dtype: "float32" there, "float16" now'),
        ({"batching": "mmf"}, 'batching: "bucketed" there, "mmf, of 1" now'),
        ({"naming": "relative"}, 'names: "mmf" there, "relative" now'),
        ({"boxes": True}, 'regions.source: "proposals" there, "given" now'),
    ],
)
def test_other_settings_are_refused(tmp_path, images, values, expected):
    run(tmp_path / "out", images[:2], formats=["mmf"])
    values = dict(values)
    extractor = FakeExtractor(values.pop("seed", 0), **values.pop("options", {}))
    if values.get("boxes"):
        values["boxes"] = GivenBoxes([(images[0].name, [])])
    before = everything(tmp_path / "out", ["mmf"])
    with pytest.raises(OutputError) as caught:
        run(tmp_path / "out", images, extractor, formats=["mmf"], **values)
    assert expected in str(caught.value)
    assert everything(tmp_path / "out", ["mmf"]) == before
    run(tmp_path / "out", images, extractor, allow_mismatch=True, formats=["mmf"], **values)
    assert len(everything(tmp_path / "out", ["mmf"])) == 5
    assert any(expected in text for text in manifest(tmp_path / "out")["runs"][-1]["mismatch"])


def test_names_that_a_format_cant_keep_come_before_any_work(tmp_path, images):
    long = images[0]._replace(name="x" * 300)
    with pytest.raises(InputError, match=r"names that can't be stored: 'xxx.*in mmf: longer"):
        run(tmp_path / "out", [*images, long])
    assert not (tmp_path / "out").exists()


def test_boxes_that_are_wrong_are_a_failure_of_their_image(tmp_path, images):
    boxes = GivenBoxes(
        [(i.name, [[1, 1, 3, 3]]) for i in images[1:]] + [(images[0].name, [[5, 5, 1, 1]])]
    )
    report = run(tmp_path / "out", images, boxes=boxes)
    assert (report.extracted, report.failed) == (4, 1)
    (failure,) = failures(tmp_path / "out")
    assert failure["stage"] == "boxes"
    assert "box 0 ends before it begins" in failure["reason"]


def test_boxes_of_an_earlier_run(tmp_path, images):
    """Another store of them is refused in the same folder."""
    run(tmp_path / "first", images, formats=["mmf"])
    boxes = GivenBoxes.read(tmp_path / "first")
    boxes.assign(images)
    assert run(tmp_path / "out", images[:3], boxes=boxes).extracted == 3
    assert run(tmp_path / "out", images, boxes=boxes).extracted == 5 - 3
    run(tmp_path / "second", images, FakeExtractor(seed=7), formats=["mmf"])
    with pytest.raises(OutputError, match=r"other settings: regions\.sha256"):
        run(tmp_path / "out", images, boxes=GivenBoxes.read(tmp_path / "second"))


def test_too_many_failures_stop_the_run_and_keep_what_is_done(tmp_path, images):
    for image in images[2:]:
        with open(image.path, "w") as file:
            file.write("no image")
    with pytest.raises(TooManyFailures, match="2 images failed, more than max_failures=1"):
        run(tmp_path / "out", images, max_failures=1)
    assert len(everything(tmp_path / "out")) == 2 * len(SOME_FORMATS)
    assert [f["name"] for f in failures(tmp_path / "out")] == ["image_002", "image_003"]
    assert manifest(tmp_path / "out")["runs"][-1]["state"] == "failed"
    assert run(tmp_path / "out", images, max_failures=3).failed == 3


@pytest.mark.parametrize("name", ["mmf", "lmdb"])
def test_a_folder_deleted_midway_is_an_error_and_not_made_again(tmp_path, images, name):
    def delete(batch):
        if len(extractor.batches) == 2:
            extractor.wait_until_written()
            shutil.rmtree(tmp_path / "out")

    extractor = FakeExtractor(before_batch=delete)
    with pytest.raises(OutputError):
        run(tmp_path / "out", images, extractor, formats=[name])
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", SOME_FORMATS)
def test_a_full_disk_is_an_error_and_what_was_written_stays(tmp_path, name):
    """The limit is one of file size: a real full disk is in the tests of the stores."""
    images = small_images(tmp_path / "in", 60)
    run(tmp_path / "undisturbed", images, formats=[name])
    expected = stored(tmp_path / "undisturbed", name)
    run(tmp_path / "out", images[:3], formats=[name])
    largest = max(p.stat().st_size for p in (tmp_path / "out").rglob("*") if p.is_file())
    room = largest + 5000 if FORMATS[name].one_file else 200
    with support.file_size_limit(room), pytest.raises(OutputError) as caught:
        run(tmp_path / "out", images, formats=[name])
    assert "\n" not in str(caught.value)
    kept = stored(tmp_path / "out", name)
    assert len(kept) >= 3
    assert kept.items() <= expected.items()
    run(tmp_path / "out", images, formats=[name])
    assert stored(tmp_path / "out", name) == expected


@pytest.mark.slow
def test_memory_does_not_grow_with_the_images(tmp_path):
    """What was written is let go of: alive are the regions of those batches at most that wait to
    be written, and of the one just made."""
    made, most = [], []

    class Counting(FakeExtractor):
        def extract_batch(self, *args):
            regions = super().extract_batch(*args)
            made.extend(weakref.ref(r.features) for r in regions)
            gc.collect()
            most.append(sum(reference() is not None for reference in made))
            return regions

    images = small_images(tmp_path / "in", 30)
    run(tmp_path / "out", images, Counting(), batch_size=2)
    assert len(made) == 30
    assert max(most) <= 2 * (MOST_UNWRITTEN + 1)


def test_a_whole_run_does_not_repeat_what_shards_have(tmp_path, images):
    shard = Shard("", 1, 0)
    for formats in (["mmf"], ["mmf", "hdf5"]):
        run(tmp_path / "out", images, formats=formats, shard=shard)
    again = run(tmp_path / "out", images, formats=["mmf"])  # shards share these files
    assert (again.extracted, again.skipped) == (0, len(images))
    with pytest.raises(ConfigError, match=r"has its hdf5 in shards: give shard_count=1"):
        run(tmp_path / "out", images, formats=["mmf", "hdf5"])
    pack([tmp_path / "out"], "hdf5", tmp_path / "out", source_format="hdf5")
    again = run(tmp_path / "out", images, formats=["mmf", "hdf5"])
    assert (again.extracted, again.skipped) == (0, len(images))
