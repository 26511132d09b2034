"""What the records of a run, and of its shards, say about how far it is.

The records are those of real jobs; see status_records.py.
"""

import os

import pytest
from fakes import FakeExtractor, small_images
from status_records import (
    Workers,
    as_of_another_machine,
    fail,
    interrupt,
    record_of,
    rewrite_run,
    run,
    shards,
    spoil,
)

from vmb_d2.engine.job import ExtractionJob
from vmb_d2.output.shards import Shard
from vmb_d2.status import STATES, read_status
from vmb_d2.utils import lease
from vmb_d2.utils.lease import this_process

COUNT = 9
EXPECTED = {
    0: "done",
    1: "done with failures",
    2: "dead",  # kill -9
    3: "running",
    4: "stopped",
    5: "failed",
    6: "dead",  # on another machine
    7: "not started",
    8: "running",  # on another machine
}


@pytest.fixture(scope="module")
def sharded(tmp_path_factory):
    """Images and an output folder with a shard in every state. Tests leave it as it is."""
    source = tmp_path_factory.mktemp("sharded")
    images, output, all_shards = small_images(source / "in", 45), source / "out", shards(COUNT)
    run(output, images, all_shards[0])
    spoil(images[7])
    run(output, images, all_shards[1])
    interrupt(output, images, all_shards[4])
    fail(output, images, all_shards[5])
    with Workers(source / "in", output, COUNT, 2, 3, 6, 8) as workers:
        for index in (2, 6, 8):
            workers.kill(index)
        as_of_another_machine(all_shards[6].folder(output), lease.EXPIRY_SECONDS + 2)
        os.utime(all_shards[8].folder(output) / "running.json")
        as_of_another_machine(all_shards[8].folder(output), lease.EXPIRY_SECONDS - 80)
        yield images, output


def stored(output, images):
    return sum((output / f"{image.name}.npy").exists() for image in images)


def by_index(status):
    return {part.shard.index: part for part in status.parts}


@pytest.fixture
def images(tmp_path):
    return small_images(tmp_path / "in", 5)


def test_every_state_is_told(sharded):
    status = read_status(sharded[1])
    assert {index: part.state for index, part in by_index(status).items()} == EXPECTED
    assert [part.shard for part in status.parts] == shards(COUNT)
    assert not status.is_complete
    assert status.is_sharded
    assert {state: len(status.of(state)) for state in STATES} == {
        "done": 1,
        "done with failures": 1,
        "running": 2,
        "dead": 2,
        "stopped": 1,
        "failed": 1,
        "damaged": 0,
        "not started": 1,
    }


def test_the_counts_are_those_of_a_naive_count(sharded):
    """What is in a lease's note is as of the beginning of the last write."""
    images, output = sharded
    parts = by_index(read_status(output))
    for shard in shards(COUNT):
        begin, end = shard.bounds(len(images))
        part, there = parts[shard.index], stored(output, images[begin:end])
        assert part.images == end - begin == 5
        assert part.done == there - (part.state in ("running", "dead")), shard
        assert part.failed == (shard.index == 1)
        assert part.left == 5 - part.done - part.failed
        assert not part.at_most
    totals = read_status(output).totals
    assert (totals.images, totals.done, totals.failed) == (45, 5 + 4 + 1 + 4 * 1, 1)
    assert totals.left == 45 - totals.done - totals.failed
    assert (totals.unknown, totals.at_most) == (0, False)


def test_whose_it_is_and_since_when_it_is_dead(sharded):
    output = sharded[1]
    parts = by_index(read_status(output))
    for index in (2, 6):
        lease_file = parts[index].folder / "running.json"
        assert parts[index].last_sign == lease_file.stat().st_mtime
    assert (parts[6].host, parts[6].job) == ("node7", "17_6, restart 1")
    assert (parts[8].host, parts[8].job) == ("node7", "17_6, restart 1")
    assert parts[4].host == this_process()["host"]
    assert parts[7].host is None
    assert parts[5].reason == "/no/such.pth: No such file or directory"
    assert [i for i, p in parts.items() if p.reason] == [5]
    assert [i for i, p in parts.items() if p.last_sign] == [2, 6]


def test_the_rate_is_that_of_the_running_shards(sharded):
    output = sharded[1]
    notes = [lease.read(Shard("", COUNT, i).folder(output) / "running.json") for i in (3, 8)]
    rates = [1 / each["note"]["seconds"] for each in notes]
    status = read_status(output)
    parts = by_index(status)
    assert [parts[i].rate for i in (3, 8)] == rates
    assert all(p.rate is None for i, p in parts.items() if i not in (3, 8))
    assert status.totals.rate == sum(rates)
    assert status.totals.running_seconds == pytest.approx(4 / min(rates))
    assert status.totals.all_seconds == pytest.approx(status.totals.left / sum(rates))


def test_a_shard_without_images_is_done(tmp_path, images, out):
    for shard in shards(8):
        run(out, images, shard)
    status = read_status(out)
    assert sorted(part.images for part in status.parts) == [0, 0, 0, 1, 1, 1, 1, 1]
    assert status.is_complete
    assert status.totals.done == status.totals.images == 5


@pytest.mark.parametrize("batch_size", [1, 4])
def test_shards_that_have_not_begun_have_the_share_that_they_will_have(tmp_path, out, batch_size):
    """Also with MMF's batches, which are not cut."""
    images = small_images(tmp_path / "in", 26)
    chunk = {"batching": "mmf", "batch_size": batch_size}
    first, *others = shards(5)
    record = record_of(out, images, first)
    own = first.share(images, images, batch_size)
    ExtractionJob(out, shard=first, record=record, **chunk)(own, FakeExtractor)
    parts = by_index(read_status(out))
    for shard in others:
        assert parts[shard.index].images == len(shard.share(images, images, batch_size))
        assert not parts[shard.index].at_most
    assert read_status(out).totals.images == 26


@pytest.mark.parametrize(
    ("inputs", "at_most"),
    [
        ({}, False),
        ({"exclude_list": "names.txt"}, True),
        ({"start_index": 3}, True),
        ({"end_index": 3}, True),
        (None, True),
    ],
)
def test_where_images_may_be_left_out_their_number_is_a_bound(images, out, inputs, at_most):
    first = shards(2)[0]
    record = record_of(out, images, first, **(inputs or {}))
    if inputs is None:
        del record["configuration"]
    run(out, images, first, record=record)
    status = read_status(out)
    assert [part.at_most for part in status.parts] == [False, at_most]
    assert status.parts[1].images == 3
    assert status.totals.at_most is at_most


def test_where_the_number_of_all_images_is_not_in_writing_it_is_not_known(images, out):
    run(out, images, shards(3)[0], record={})
    status = read_status(out)
    assert [part.images for part in status.parts] == [1, None, None]
    assert (status.totals.images, status.totals.unknown) == (1, 2)
    assert status.totals.all_seconds is None


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
    run(out, images[:2], Shard("one.00000000"))
    status = read_status(out)
    assert [part.name for part in status.parts] == [
        "one.00000000.0-of-1",
        "train.12345678.0-of-2",
        "train.12345678.1-of-2",
        "val.1-of-2.87654321.0-of-3",
        "val.1-of-2.87654321.1-of-3",
        "val.1-of-2.87654321.2-of-3",
    ]
    assert [part.images for part in status.parts] == [2, 2, 3, 2, 2, 3]
    assert [part.state for part in status.parts if part.state != "not started"] == ["done"] * 3


def test_empty_folders_of_another_count_are_no_shards(images, out):
    run(out, images, shards(2)[0])
    shards(7)[3].folder(out).mkdir()
    (out / "shards" / "notes").mkdir()
    (out / "shards" / "1-of-2.bak").write_text("")
    assert [part.name for part in read_status(out).parts] == ["0-of-2", "1-of-2"]
