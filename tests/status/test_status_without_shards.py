"""How far a run without shards is; a run beside shards; no run at all."""

import shutil
import time

import pytest
from fakes import small_images
from status_records import (
    Workers,
    interrupt,
    leave_lease,
    manifest,
    rewrite_run,
    run,
    shards,
    spoil,
    text_of,
    the,
)

from vmb_d2.errors import OutputError
from vmb_d2.packing.job import pack
from vmb_d2.status import read_status


@pytest.fixture
def images(tmp_path):
    return small_images(tmp_path / "in", 5)


def test_a_whole_run(images, out):
    run(out, images[:3])
    part = the(out)
    assert (part.state, part.images, part.done, part.failed, part.left) == ("done", 3, 3, 0, 0)
    assert (part.shard, part.folder) == (None, out)
    assert read_status(out).is_complete
    spoil(images[4])
    run(out, images)
    part = the(out)
    assert (part.state, part.done, part.failed) == ("done with failures", 4, 1)
    assert not read_status(out).is_complete


def test_a_whole_run_that_was_interrupted(images, out):
    interrupt(out, images, after=2)
    part = the(out)
    assert (part.state, part.images, part.done, part.left) == ("stopped", 5, 2, 3)


def test_a_whole_run_that_runs_and_then_is_dead(images, out):
    with Workers(out.parent / "in", out, 1, -1) as workers:
        part = the(out)
        assert (part.state, part.images, part.done) == ("running", 5, 1)
        assert part.rate > 0
        assert part.pid == workers.pids[-1]
        workers.kill(-1)
        part = the(out)
        assert (part.state, part.images, part.done, part.rate) == ("dead", 5, 1, None)
        assert abs(part.last_sign - time.time()) < 60


def test_a_record_from_before_there_were_shards(images, out):
    run(out, images, record={"configuration": {}})
    content = manifest(out)
    assert "command" not in content
    assert "shard" not in content
    assert the(out).state == "done"


def test_a_packed_folder(images, out, tmp_path):
    run(out, images)
    pack([out], "lmdb", tmp_path / "packed")
    part = the(tmp_path / "packed")
    assert (part.state, part.images, part.done, part.failed) == ("done", 5, 5, 0)
    assert part.is_packing
    pack([out], "lmdb", tmp_path / "packed")
    assert the(tmp_path / "packed").done == 5
    (out / "image_003.npy").write_bytes(b"damaged")
    pack([out], "hdf5", tmp_path / "packed")
    part = the(tmp_path / "packed")
    assert (part.state, part.images, part.done, part.failed) == ("done with failures", 5, 4, 1)
    rewrite_run(tmp_path / "packed", state="interrupted")
    part = the(tmp_path / "packed")
    assert (part.state, part.images, part.done, part.failed) == ("stopped", None, 4, 1)
    assert text_of(tmp_path / "packed")[1] == (
        "images  4 done, 1 failed; of how many isn't in writing"
    )
    rewrite_run(tmp_path / "packed", state="running")
    part = the(tmp_path / "packed")
    assert (part.state, part.images, part.done) == ("dead", None, 0)


def test_what_began_last_is_what_it_is_about(images, out):
    first, second = shards(2)
    run(out, images[:3])
    run(out, images, first)
    rewrite_run(out, started="2000-01-01T00:00:00+00:00")
    status = read_status(out)
    assert [part.state for part in status.parts] == ["done", "not started"]
    assert status.aside == "an earlier run without shards, done"
    rewrite_run(out, started="2999-01-01T00:00:00+00:00")
    status = read_status(out)
    assert [part.shard for part in status.parts] == [None]
    assert status.aside == "2 shards of an earlier run"
    assert status.is_complete
    rewrite_run(out, program="pack")
    status = read_status(out)
    assert [part.shard for part in status.parts] == [first, second]
    assert status.aside == "packing into this folder, done"


def test_a_whole_run_that_is_just_beginning_is_what_it_is_about(images, out):
    run(out, images, shards(2)[0])
    leave_lease(out)
    status = read_status(out)
    assert [(part.shard, part.state) for part in status.parts] == [(None, "running")]
    assert status.aside == "2 shards of an earlier run"


def test_without_a_record_there_is_nothing_to_say(tmp_path, images, out):
    with pytest.raises(OutputError, match="no such folder"):
        read_status(out)
    with pytest.raises(OutputError, match="no such folder"):
        read_status(images[0].path)
    with pytest.raises(OutputError, match="no record of a run in it"):
        read_status(tmp_path / "in")
    run(out, images, shards(2)[0])
    shutil.rmtree(out / "shards")
    with pytest.raises(OutputError, match="no record of a run in it"):  # it only has settings
        read_status(out)
