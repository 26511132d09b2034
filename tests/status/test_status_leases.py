"""Which runs are alive: what leases, their time and the manifest beside them say together."""

import os
import shutil

import pytest
from fakes import small_images
from status_records import (
    LONG_AGO,
    as_of_another_machine,
    interrupt,
    leave_lease,
    rewrite_run,
    run,
    shards,
    the,
)

from vmb_d2.status import part as part_module
from vmb_d2.status import read_status
from vmb_d2.utils import lease


@pytest.fixture
def images(tmp_path):
    return small_images(tmp_path / "in", 5)


def test_a_run_that_has_just_begun_is_running_whatever_the_manifest_says(images, out):
    interrupt(out, images)
    leave_lease(out)
    part = the(out)
    assert (part.state, part.done, part.rate) == ("running", 1, None)
    shutil.rmtree(out)
    out.mkdir()
    leave_lease(out)
    assert (the(out).state, the(out).images) == ("running", None)


def test_a_run_that_was_killed_before_it_could_note_anything_is_dead(images, out):
    run(out, images)
    leave_lease(out, pid=2**22 + 1, process_start="1")
    part = the(out)
    assert (part.state, part.done, part.pid) == ("dead", 5, 2**22 + 1)
    shutil.rmtree(out)
    (shards(3)[1].folder(out)).mkdir(parents=True)
    leave_lease(shards(3)[1].folder(out), pid=2**22 + 1, process_start="1")
    status = read_status(out)
    assert [part.state for part in status.parts] == ["not started", "dead", "not started"]


def test_a_run_that_was_killed_after_it_noted_its_end_is_what_it_noted(images, out):
    run(out, images)
    leave_lease(out, process_start="1")
    assert the(out).state == "done"


@pytest.mark.parametrize(("silent", "state"), [(0, "running"), (89, "running"), (91, "dead")])
def test_on_another_machine_a_run_lives_as_long_as_it_gives_signs(images, out, silent, state):
    interrupt(out, images)
    rewrite_run(out, state="running")
    leave_lease(out)
    as_of_another_machine(out, 0)
    now = (out / "running.json").stat().st_mtime + silent
    part = the(out, now=now)
    assert part.state == state
    assert part.last_sign == (now - silent if state == "dead" else None)


def test_a_clock_that_is_behind_makes_nobody_dead(images, out):
    run(out, images)
    leave_lease(out)
    as_of_another_machine(out, -3600)
    assert the(out).state == "running"


def test_a_process_that_is_there_but_halted_is_said_to_be(images, out):
    run(out, images)
    leave_lease(out)
    os.utime(out / "running.json", (LONG_AGO, LONG_AGO))
    status = read_status(out, LONG_AGO + 300)
    assert status.parts[0].state == "running"
    (problem,) = status.problems
    assert f"process {os.getpid()} on " in problem
    assert "no sign of life for 300 seconds" in problem


def test_dead_without_a_lease_is_dead_since_the_manifest(images, out):
    interrupt(out, images)
    rewrite_run(out, state="running")
    part = the(out)
    assert (part.state, part.done) == ("dead", 1)
    assert part.last_sign == (out / "manifest.json").stat().st_mtime


def test_a_run_that_ends_between_two_looks_is_not_dead(images, out, monkeypatch):
    run(out, images)
    ended = (out / "manifest.json").read_bytes()
    rewrite_run(out, state="running")
    read = lease.read

    def read_late(path):
        (out / "manifest.json").write_bytes(ended)
        return read(path)

    monkeypatch.setattr(part_module.lease, "read", read_late)
    assert the(out).state == "done"


def test_a_folder_that_vanishes_between_two_looks_has_not_begun(images, out, monkeypatch):
    first, second = shards(2)
    run(out, images, first)
    run(out, images, second)
    rewrite_run(second.folder(out), state="running")
    read = lease.read

    def read_late(path):
        shutil.rmtree(second.folder(out), ignore_errors=True)
        return read(path)

    monkeypatch.setattr(part_module.lease, "read", read_late)
    assert [part.state for part in read_status(out).parts] == ["done", "not started"]
