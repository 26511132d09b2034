"""The lease, and the processes that hold it: one at a time, whatever becomes of them."""

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import deaths
import pytest
import support

from vmb_d2.errors import OutputError
from vmb_d2.utils import lease as module
from vmb_d2.utils.lease import (
    Lease,
    LeaseHeld,
    lives,
    read,
    require_free,
    this_process,
)

DEAD = {"process_start": "1"}  # of this machine, with this process' number
FAR = {"machine": "another", "host": "far", "pid": 77, "process_start": "1"}

_kept = []  # leases, as long as their processes live


@pytest.fixture
def path(tmp_path):
    return tmp_path / "running.json"


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(module, "BEAT_SECONDS", 0.01)
    monkeypatch.setattr(module, "EXPIRY_SECONDS", 0.2)


def leave(path, holder, **values):
    """A lease's file as a holder left it."""
    entry = {**this_process(), "count": 1, "note": {}, **holder, **values}
    path.write_text(json.dumps(entry))
    return entry


@contextlib.contextmanager
def sleeping(monkeypatch, *steps):
    """In place of each sleep, one of ``steps`` is done. There are no other sleeps."""
    left = list(steps)
    with monkeypatch.context() as patch:
        patch.setattr(time, "sleep", lambda seconds: left.pop(0)())
        yield
    assert not left


def until(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def try_to_get(path):
    try:
        _kept.append(Lease(path).acquire())
    except LeaseHeld:
        return "held"
    return "got"


def test_the_file_is_there_as_long_as_the_lease_is_held(path):
    lease = Lease(path).acquire()
    assert read(path).items() >= this_process().items()
    lease.require()
    lease.release()
    lease.release()
    assert list(path.parent.iterdir()) == []


def test_signs_of_life_and_notes(path, quick):
    with Lease(path).acquire() as lease:
        for note in ({"done": 3}, {"done": 10**9, "failed": 2}, {}):
            lease.note, count = note, read(path).get("count", 0)
            until(lambda note=note: read(path).get("note") == note)
            until(lambda count=count: read(path).get("count", 0) > count + 1)
            assert path.stat().st_size == 2048


def test_a_living_process_keeps_it(path, monkeypatch):
    with Lease(path).acquire(), sleeping(monkeypatch):
        with pytest.raises(LeaseHeld, match=rf"held by process {os.getpid()} on") as caught:
            Lease(path).acquire()
        assert caught.value.holder["pid"] == os.getpid()
        assert deaths.in_child(lambda send: send(try_to_get(path))) == ["held"]
        with pytest.raises(LeaseHeld):
            require_free([path.with_name("none"), path])
    assert deaths.in_child(lambda send: send(try_to_get(path))) == ["got"]


@pytest.mark.slow
def test_many_that_die_and_die_again_on_a_slow_disk(tmp_path):
    done = support.run_tool("tests/support/programs/racing_leases.py", tmp_path, 8, 8, 0)
    assert done.returncode == 0, done.stderr
    assert sum(map(int, done.stdout.split())) > 10


def test_a_killed_process_has_lost_it_at_once(path, monkeypatch):
    def work(send):
        send(try_to_get(path))
        signal.pause()

    assert deaths.killed(work, 0, after_first=True) == ["got"]
    assert read(path)["pid"] != os.getpid()
    with sleeping(monkeypatch), Lease(path).acquire() as lease:
        lease.require()
        assert list(path.parent.iterdir()) == [path]


def test_a_process_of_another_machine_is_watched_and_then_taken_for_dead(path, quick, caplog):
    caplog.set_level("INFO")
    leave(path, FAR)
    begin = time.monotonic()
    with Lease(path).acquire() as lease:
        assert time.monotonic() - begin >= 0.2
        lease.require()
    assert "looking for signs of life, 0.2 seconds at most" in caplog.text
    assert "running.json, of process 77 on far" in caplog.text


def test_a_process_of_another_machine_that_gives_signs_of_life(path, monkeypatch):
    leave(path, FAR)
    steps = [lambda: None, lambda: None, lambda: leave(path, FAR, count=2)]
    with (
        sleeping(monkeypatch, *steps),
        pytest.raises(LeaseHeld, match="held by process 77 on far"),
    ):
        Lease(path).acquire()
    assert read(path)["count"] == 2


def test_a_process_of_another_machine_that_lets_go(path, monkeypatch):
    leave(path, FAR)
    with sleeping(monkeypatch, path.unlink), Lease(path).acquire():
        assert read(path)["host"] != "far"


def test_several_are_watched_at_the_same_time(tmp_path, quick, monkeypatch):
    paths = [tmp_path / name for name in "abcd"]
    for path in paths[:3]:
        leave(path, FAR)
    begin = time.monotonic()
    assert list(require_free(paths)) == paths[:3]
    assert 0.2 <= time.monotonic() - begin < 0.5
    with (
        sleeping(monkeypatch, paths[0].unlink, lambda: leave(paths[2], FAR, count=2)),
        pytest.raises(LeaseHeld, match="/c: held"),
    ):
        require_free(paths)


@pytest.mark.parametrize("content", ["", '{"pid": 3'])
def test_a_torn_file_is_watched_and_then_taken(path, quick, content):
    path.write_text(content)
    assert read(path) == {}
    begin = time.monotonic()
    with Lease(path).acquire() as lease:
        assert time.monotonic() - begin >= 0.2
        lease.require()


def test_a_new_file_in_place_of_a_dead_empty_one_stays(path, quick, monkeypatch):
    path.touch()
    takeover = path.with_name("running.json.takeover")
    sleep = time.sleep

    def wait(seconds):
        if takeover.exists():
            leave(path, FAR)
        sleep(seconds)

    monkeypatch.setattr(time, "sleep", wait)
    with pytest.raises(LeaseHeld, match="far"):
        Lease(path).acquire()
    assert read(path)["host"] == "far"
    assert not takeover.exists()


def test_waiting_for_the_release(path, monkeypatch, caplog):
    caplog.set_level("INFO")
    first = Lease(path).acquire()
    with sleeping(monkeypatch, lambda: None, first.release), Lease(path).acquire(wait=True) as next:
        next.require()
    assert caplog.text.count(f"held by process {os.getpid()} on") == 1


def test_what_is_not_ones_own_stays(path):
    lease = Lease(path).acquire()
    os.replace(path, path.with_name("aside"))
    for holder, words in ((FAR | {"job": "5"}, "process 77 on far, job 5"), (None, r"process \?")):
        leave(path, holder) if holder else path.write_text("")
        with pytest.raises(OutputError, match=f"lost to {words}.*; this process stops"):
            lease.require()
    lease.release()
    assert read(path) == {}
    path.unlink()
    with Lease(path).acquire() as lease:
        path.unlink()
        with pytest.raises(OutputError, match="lost to nobody, it is gone; this process stops"):
            lease.require()
    assert read(path) is None


def test_a_full_disk_leaves_no_file(tmp_path):
    def work(disk):
        (tmp_path / "other").write_bytes(bytes(8192))
        with pytest.raises(OSError, match="No space left"):
            Lease(tmp_path / "running.json").acquire()
        assert os.listdir(tmp_path) == ["other"]
        (tmp_path / "other").unlink()
        Lease(tmp_path / "running.json").acquire().release()

    deaths.on_small_disk(tmp_path, 8192, work)


def test_a_disk_that_is_full_or_away_for_a_while(path, quick, monkeypatch):
    def fail(*arguments):
        failed.append(arguments)
        raise OSError(errno.ENOSPC, "No space left on device")

    failed = []
    with Lease(path).acquire() as lease:
        with monkeypatch.context() as patch:
            patch.setattr(module, "write_at", fail)
            until(lambda: len(failed) > 3)
            lease.require()
        count = read(path)["count"]
        until(lambda: read(path).get("count", 0) > count + 1)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"JOB_ID": "20", "ARRAY_JOB_ID": "17", "ARRAY_TASK_ID": "0"}, "17_0"),
        ({"JOB_ID": "17", "RESTART_COUNT": "2"}, "17, restart 2"),
    ],
)
def test_the_job_of_slurm(variables, expected, monkeypatch):
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert this_process().get("job") == expected


def test_who_lives():
    """Of a process whose name is hard to read in /proc."""
    code = """if True:
        import sys
        from vmb_d2.utils.lease import this_process
        with open("/proc/self/comm", "w") as file:
            file.write("x) Z 1 (2")
        print(__import__("json").dumps(this_process()), flush=True)
        sys.stdin.read()
    """
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe) as process:
        there = json.loads(process.stdout.readline())
        assert "x) Z 1 (" in Path(f"/proc/{process.pid}/stat").read_text()
        assert lives(there) is True
        assert lives({**there, "process_start": str(int(there["process_start"]) + 1)}) is False
        assert lives({**there, "pid": None}) is False
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert lives(there) is False  # a zombie
    assert lives(there) is False


def test_who_cant_be_known_to_live():
    assert lives({**this_process(), **FAR}) is None
    assert lives({}) is None
