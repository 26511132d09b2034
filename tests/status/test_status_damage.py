"""The status of a run whose records are damaged: said of a shard, and no end of everything."""

import os

import pytest
from fakes import small_images
from status_records import LONG_AGO, interrupt, leave_lease, rewrite, run, shards, the

from vmb_d2.status import part as part_module
from vmb_d2.status import read_status


@pytest.fixture
def images(tmp_path):
    return small_images(tmp_path / "in", 5)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b'{"settings": {}, "runs": [{"sta',
        b"\xff\xfe\0",
        b"[]",
        b"null",
        b'{"settings": 1}',
        b'{"settings": {}, "runs": 3}',
        b'{"settings": {}, "runs": [3]}',
        b'{"settings": {}, "runs": [{"state": "odd"}]}',
        b'{"settings": {}, "runs": [{"state": ["odd"]}]}',
        b'{"settings": {}, "runs": [{}]}',
    ],
)
def test_a_damaged_manifest_is_that_shards_alone(images, out, content):
    first, second = shards(2)
    run(out, images, first)
    run(out, images, second)
    (second.folder(out) / "manifest.json").write_bytes(content)
    done, damaged = read_status(out).parts
    assert (done.state, damaged.state) == ("done", "damaged")
    assert (damaged.images, damaged.done) == (3, 0)
    assert "manifest" in damaged.reason
    assert "\n" not in damaged.reason


def test_a_damaged_manifest_of_a_whole_run(images, out):
    run(out, images)
    (out / "manifest.json").write_text("{")
    assert the(out).state == "damaged"
    assert not read_status(out).is_complete


def test_the_common_manifest_damaged_is_a_problem_of_all(images, out):
    run(out, images, shards(2)[0])
    (out / "manifest.json").write_text("{")
    status = read_status(out)
    assert [part.state for part in status.parts] == ["done", "not started"]
    (problem,) = status.problems
    assert str(out / "manifest.json") in problem
    assert "no shard can start" in problem


@pytest.mark.parametrize(
    "changes",
    [
        {"counts": None},
        {"counts": {"images": "5", "done": [], "failed": -1}},
        {"counts": {"images": 5}},
        {"shard": 3, "settings": {"batching": "mmf, of 0"}, "configuration": []},
        {"shard": {"of_images": True}},
        {"stores": 3, "command": "x"},
    ],
)
def test_odd_values_are_no_end_of_everything(images, out, changes):
    first, second = shards(2)
    run(out, images, first)
    interrupt(out, images, second)
    rewrite(second.folder(out) / "manifest.json", **changes)
    assert [part.state for part in read_status(out).parts] == ["done", "stopped"]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"machine": 3, "pid": {}, "note": []}', b'{"note": 3}']
)
def test_a_damaged_lease_goes_by_its_time(images, out, content):
    run(out, images)
    (out / "running.json").write_bytes(content)
    assert the(out).state == "running"
    os.utime(out / "running.json", (LONG_AGO, LONG_AGO))
    assert the(out).state == "dead"
    assert the(out).done == 5


def test_a_lease_that_cant_be_read_goes_by_its_time(images, out, monkeypatch):
    def fail(path):
        raise OSError(5, "Input/output error")

    run(out, images)
    monkeypatch.setattr(part_module.lease, "read", fail)
    assert the(out).state == "done"
    (out / "running.json").write_text("{}")
    assert the(out).state == "running"
    os.utime(out / "running.json", (LONG_AGO, LONG_AGO))
    assert the(out).state == "dead"


@pytest.mark.parametrize(
    "note",
    [
        {"images": 5, "done": 3, "failed": 0, "extracted": 3, "seconds": 0},
        {"images": 5, "done": 3, "failed": 0, "extracted": 0, "seconds": 1},
        {"images": 5, "done": 3, "failed": 0, "extracted": True, "seconds": 1},
        {"images": 5, "done": 3, "failed": 0, "extracted": 3, "seconds": float("nan")},
        {"images": 5, "done": 3, "failed": 0, "extracted": 3, "seconds": "1"},
        {"images": 5, "done": 3, "failed": 0},
    ],
)
def test_a_note_without_a_rate(images, out, note):
    run(out, images)
    leave_lease(out, note=note)
    part = the(out)
    assert (part.state, part.done, part.rate) == ("running", 3, None)
    totals = read_status(out).totals
    assert (totals.rate, totals.running_seconds, totals.all_seconds) == (0, None, None)


def test_a_record_that_cant_be_read(images, out):
    """Of a kind that root can't read either."""
    run(out, images, shards(2)[0])
    run(out, images, shards(2)[1])
    manifest = shards(2)[1].folder(out) / "manifest.json"
    manifest.unlink()
    manifest.mkdir()
    part = read_status(out).parts[1]
    assert (part.state, part.reason) == ("damaged", f"{manifest}: can't be read: Is a directory")
