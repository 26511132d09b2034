"""What the records of a run, and of its shards, say about how far it is."""

import os
import shutil

import pytest
from fakes import FakeExtractor, small_images
from status_records import (
    LONG_AGO,
    STATES,
    as_of_another_machine,
    every_state,
    interrupt,
    leave_lease,
    rewrite_run,
    run,
    shards,
    spoil,
    stored,
    the,
)

from vmb_d2 import status as status_module
from vmb_d2.errors import OutputError
from vmb_d2.output.shards import Shard
from vmb_d2.packing.job import pack
from vmb_d2.status import read_status
from vmb_d2.utils.lease import this_process

TWO_HOURS = 7200


@pytest.fixture(scope="module")
def sharded(tmp_path_factory):
    """Images and an output folder with a shard in every state. Tests leave it as it is."""
    source = tmp_path_factory.mktemp("sharded")
    images = small_images(source / "in", 27)
    every_state(source / "out", images)
    return images, source / "out"


@pytest.fixture
def images(tmp_path):
    return small_images(tmp_path / "in", 5)


def states(status):
    return [part.state for part in status.parts]


@pytest.mark.slow
def test_every_state(sharded):
    _, output = sharded
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*")}
    status = read_status(output)
    assert states(status) == list(STATES.values())
    assert [part.shard for part in status.parts] == shards(len(STATES))
    assert (status.is_sharded, status.is_complete, status.next_step) == (True, False, "finish")
    parts = status.parts
    assert [(parts[i].host, parts[i].job) for i in (4, 6, 7)] == [
        (this_process()["host"], "17_4, restart 2"),
        ("node7", "17_6, restart 1"),
        (None, None),
    ]
    assert parts[5].reason == "/no/such.pth: No such file or directory"
    assert "manifest.json: can't be read" in parts[8].reason
    assert [bool(part.reason) for part in parts].count(True) == 2
    for index in (2, 6):
        sign = (parts[index].folder / "running.json").stat().st_mtime
        assert parts[index].last_sign_of_life == sign
    assert [bool(part.last_sign_of_life) for part in parts].count(True) == 2
    assert parts[4].log == output / "logs" / "17_4"
    assert parts[6].log is None
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*")} == before


def test_the_counts_are_those_of_a_naive_count(sharded):
    images, output = sharded
    status = read_status(output)
    for part in status.parts:
        begin, end = part.shard.bounds(len(images))
        assert part.images == 3
        assert part.failed == (part.shard.index == 1)
        assert part.left == 3 - part.done - part.failed
        if part.state in ("done", "done with failures", "stopped", "failed", "not started"):
            assert part.done == stored(output, images[begin:end])
    assert (status.total("images"), status.total("failed"), status.unknown) == (27, 1, 0)
    assert status.total("left") == 27 - status.total("done") - 1
    assert status.parts[3].images_per_second == status.total("images_per_second") == 1 / TWO_HOURS
    assert status.seconds_left == status.total("left") * TWO_HOURS


def test_a_shard_without_images_is_done(images, out):
    for shard in shards(8):
        run(out, images, shard)
    status = read_status(out)
    assert sorted(part.images for part in status.parts) == [0, 0, 0, 1, 1, 1, 1, 1]
    assert status.is_complete
    assert status.total("done") == status.total("images") == 5


@pytest.mark.parametrize("batch_size", [1, 4])
def test_shards_that_have_not_begun_have_the_share_that_they_will_have(tmp_path, out, batch_size):
    """Also with MMF's batches, which are not cut."""
    images = small_images(tmp_path / "in", 26)
    first, *others = shards(5)
    run(out, images, first, batching="mmf", batch_size=batch_size)
    parts = read_status(out).parts
    for shard in others:
        assert parts[shard.index].images == len(shard.share(images, images, batch_size))


def test_where_the_number_of_all_images_is_not_recorded_it_is_unknown(images, out):
    run(out, images, shards(3)[0], record={})
    status = read_status(out)
    assert [part.images for part in status.parts] == [1, None, None]
    assert (status.total("images"), status.unknown, status.seconds_left) == (1, 2, None)


def test_the_newest_shard_tells_how_many_images_there_are(tmp_path, out):
    images = small_images(tmp_path / "in", 12)
    first, second, _ = shards(3)
    run(out, images[:9], first)
    run(out, images, second)
    rewrite_run(first.folder(out), started="2000-01-01T00:00:00+00:00")
    assert [part.images for part in read_status(out).parts] == [3, 4, 4]
    rewrite_run(first.folder(out), started="2999-01-01T00:00:00+00:00")
    assert [part.images for part in read_status(out).parts] == [3, 4, 3]


def test_image_lists_have_shards_each(tmp_path, out):
    images = small_images(tmp_path / "in", 12)
    run(out, images[:5], Shard("train.12345678", 2, 0))
    run(out, images[5:], Shard("val.1-of-2.87654321", 3, 2))
    shards(7)[3].folder(out).mkdir()  # an empty folder of another count is no shard
    status = read_status(out)
    assert {part.name: (part.state, part.images) for part in status.parts} == {
        "train.12345678.0-of-2": ("done", 2),
        "train.12345678.1-of-2": ("not started", 3),
        "val.1-of-2.87654321.0-of-3": ("not started", 2),
        "val.1-of-2.87654321.1-of-3": ("not started", 2),
        "val.1-of-2.87654321.2-of-3": ("done", 3),
    }


def test_a_run_without_shards(images, out):
    run(out, images[:3])
    part = the(out)
    assert (part.state, part.images, part.done, part.failed, part.left) == ("done", 3, 3, 0, 0)
    assert (part.shard, part.folder) == (None, out)
    assert read_status(out).next_step == "nothing"
    spoil(images[4])
    run(out, images)
    part = the(out)
    assert (part.state, part.done, part.failed) == ("done with failures", 4, 1)
    assert not read_status(out).is_complete
    assert read_status(out).next_step == "retry"


def test_a_packed_folder(images, out, tmp_path):
    run(out, images)
    packed = tmp_path / "packed"
    for _ in range(2):
        pack([out], "lmdb", packed)
        part = the(packed)
        assert (part.state, part.images, part.done, part.failed) == ("done", 5, 5, 0)
    (out / "image_003.npy").write_bytes(b"damaged")
    pack([out], "hdf5", packed)
    part = the(packed)
    assert (part.state, part.images, part.done, part.failed) == ("done with failures", 5, 4, 1)
    rewrite_run(packed, state="interrupted")
    part = the(packed)
    assert (part.state, part.images, part.done, part.failed) == ("stopped", None, 4, 1)
    rewrite_run(packed, state="running")
    assert (the(packed).state, the(packed).done) == ("dead", 0)


def test_of_shards_and_a_run_without_them_the_last_to_begin_counts(images, out):
    run(out, images[:3])
    run(out, images, shards(2)[0])
    rewrite_run(out, started="2000-01-01T00:00:00+00:00")
    assert states(read_status(out)) == ["done", "not started"]
    leave_lease(out)  # it is just beginning
    assert states(read_status(out)) == ["running"]
    (out / "running.json").unlink()
    rewrite_run(out, started="2999-01-01T00:00:00+00:00")
    assert [part.shard for part in read_status(out).parts] == [None]
    rewrite_run(out, program="pack")
    assert states(read_status(out)) == ["done", "not started"]


def test_without_a_record_there_is_no_status(tmp_path, images, out):
    for folder in (out, images[0].path):
        with pytest.raises(OutputError, match="no such folder"):
            read_status(folder)
    with pytest.raises(OutputError, match="no record of a run in it"):
        read_status(tmp_path / "in")
    run(out, images, shards(2)[0])
    shutil.rmtree(out / "shards")
    with pytest.raises(OutputError, match="no record of a run in it"):  # it only has settings
        read_status(out)


def test_a_run_that_has_just_begun_is_running(images, out):
    interrupt(out, images)
    before = the(out)
    leave_lease(out)
    part = the(out)
    assert (part.state, part.done, part.images_per_second) == ("running", before.done, None)
    (out / "manifest.json").unlink()
    assert (the(out).state, the(out).images) == ("running", None)


def test_a_run_that_was_killed_before_it_could_note_anything_is_dead(images, out):
    run(out, images)
    nobody = {"pid": 2**22 + 1, "process_start": "1"}
    leave_lease(out, **nobody)
    part = the(out)
    assert (part.state, part.done) == ("dead", 5)
    leave_lease(out, process_start="1")  # the process of the manifest, which had noted its end
    assert the(out).state == "done"
    shutil.rmtree(out)
    shards(3)[1].folder(out).mkdir(parents=True)
    leave_lease(shards(3)[1].folder(out), **nobody)
    assert states(read_status(out)) == ["not started", "dead", "not started"]


@pytest.mark.parametrize(("silent", "state"), [(0, "running"), (89, "running"), (91, "dead")])
def test_on_another_machine_a_run_lives_as_long_as_it_gives_signs(images, out, silent, state):
    interrupt(out, images)
    rewrite_run(out, state="running")
    leave_lease(out)
    as_of_another_machine(out, 0)
    now = (out / "running.json").stat().st_mtime + silent
    part = the(out, now=now)
    assert part.state == state
    assert part.last_sign_of_life == (now - silent if state == "dead" else None)
    assert the(out, now=now - 3600).state == "running"  # by a clock that is behind


@pytest.mark.parametrize("vanishes", [False, True])
def test_a_run_that_ends_while_it_is_looked_at_is_not_dead(images, out, monkeypatch, vanishes):
    """The lease is gone before the manifest is read, which still says that the run is on."""
    run(out, images, shards(2)[0])
    second = shards(2)[1].folder(out)
    run(out, images, shards(2)[1])
    ended = (second / "manifest.json").read_bytes()
    rewrite_run(second, state="running")
    read = status_module.part.read_manifest

    def read_before_the_end(folder):
        content = read(folder)
        if folder == second and vanishes:
            shutil.rmtree(second, ignore_errors=True)
        elif folder == second:
            (second / "manifest.json").write_bytes(ended)
        return content

    monkeypatch.setattr(status_module.part, "read_manifest", read_before_the_end)
    assert states(read_status(out)) == ["done", "not started" if vanishes else "done"]


@pytest.mark.parametrize(
    "content",
    [b"", b'{"settings": {}, "runs": [{"sta', b"\xff\xfe\0", b"[]", None],
)
def test_a_damaged_manifest_concerns_its_shard_alone(images, out, content):
    first, second = shards(2)
    run(out, images, first)
    run(out, images, second)
    manifest = second.folder(out) / "manifest.json"
    if content is None:
        manifest.unlink()
        manifest.mkdir()  # what root can't read either
    else:
        manifest.write_bytes(content)
    done, damaged = read_status(out).parts
    assert (done.state, damaged.state) == ("done", "damaged")
    assert (damaged.images, damaged.done) == (3, 0)
    assert str(manifest) in damaged.reason
    assert "\n" not in damaged.reason


def test_a_damaged_manifest_of_the_whole_folder(images, out):
    run(out, images)
    (out / "manifest.json").write_text("{")
    assert the(out).state == "damaged"
    run(out / "sharded", images, shards(2)[0])
    (out / "sharded" / "manifest.json").write_text("{")
    status = read_status(out / "sharded")
    assert states(status) == ["done", "not started"]
    (note,) = status.notes
    assert str(out / "sharded" / "manifest.json") in note
    assert "no shard can start" in note


@pytest.mark.parametrize("content", [b"", b"{"])
def test_a_lease_that_is_just_being_written_goes_by_its_time(images, out, content):
    run(out, images)
    (out / "running.json").write_bytes(content)
    assert the(out).state == "running"
    os.utime(out / "running.json", (LONG_AGO, LONG_AGO))
    assert (the(out).state, the(out).done) == ("dead", 5)


def test_stores_that_each_shard_has_of_its_own_are_to_be_packed(images, out):
    for shard in shards(2):
        run(out, images, shard, formats=["lmdb"])
    status = read_status(out)
    assert status.next_step == "pack"
    assert status.to_pack() == [(str(out), "lmdb")]
    pack([out], "lmdb", out)
    assert (read_status(out).next_step, read_status(out).to_pack()) == ("nothing", [])
    rewrite_run(out, state="interrupted")
    assert read_status(out).next_step == "pack"
    rewrite_run(out, state="finished", started="2000-01-01T00:00:00+00:00")  # before the shards
    assert read_status(out).next_step == "pack"


def test_stores_of_several_features_and_formats_are_to_be_packed(images, out):
    extractor = FakeExtractor(feature_names=["fc6", "fc7"])
    run(out, images, Shard(), extractor, formats=["mmf", "hdf5"])
    folders = [str(out / name) for name in ("fc6", "fc7")]
    assert read_status(out).to_pack() == [(folder, "hdf5") for folder in folders]
    pack([folders[0]], "hdf5", folders[0], source_format="hdf5")
    assert read_status(out).to_pack() == [(folders[1], "hdf5")]
    pack([folders[1]], "npz", folders[1], source_format="hdf5")
    assert read_status(out).to_pack() == [(folders[1], "hdf5")]


@pytest.mark.parametrize(("sharded", "formats"), [(True, ["mmf", "npz"]), (False, ["lmdb"])])
def test_what_is_in_one_place_needs_no_packing(images, out, sharded, formats):
    for shard in shards(2) if sharded else [None]:
        run(out, images, shard, formats=formats)
    assert (read_status(out).next_step, read_status(out).to_pack()) == ("nothing", [])
