"""Who may write into an output folder beside whom: shards of one cut, or one whole run."""

import contextlib
import json
import os
import signal

import deaths
import pytest
from races import at_once

from vmb_d2.errors import ConfigError, OutputError
from vmb_d2.output import lock
from vmb_d2.output.lock import LEASE_NAME, sole_use
from vmb_d2.output.shards import Shard
from vmb_d2.utils.lease import Lease, LeaseHeld, read, this_process

FIRST, SECOND, OF_THREE = Shard("", 2, 0), Shard("", 2, 1), Shard("", 3, 1)
WHOLE = None

_kept = contextlib.ExitStack()  # as long as its process lives


@pytest.fixture
def out(tmp_path):
    return tmp_path / "new" / "out"


def enter(folder, shard, stack=_kept):
    """Use the folder as long as the stack is open, else as this process lives."""
    try:
        stack.enter_context(sole_use(folder, shard))
    except (ConfigError, OutputError) as error:
        return f"refused: {error}"
    return "in"


def in_another_process(folder, shard):
    (answer,) = deaths.in_child(lambda send: send(enter(folder, shard)))
    return answer


def lease_file(folder, shard):
    return (shard.folder(folder) if shard else folder) / LEASE_NAME


def leave_dead(folder, shard):
    """The lease of a dead process."""
    lease_file(folder, shard).parent.mkdir(parents=True, exist_ok=True)
    dead = {**this_process(), "process_start": "1", "token": "its", "count": 1}
    lease_file(folder, shard).write_text(json.dumps(dead))


def test_the_folder_is_made_and_kept(out):
    with sole_use(out) as lease:
        assert lease.path == out / "running.json"
        lease.require()
    assert list(out.iterdir()) == []
    with sole_use(out, FIRST), sole_use(out, SECOND) as lease:
        assert lease.path == out / "shards" / "1-of-2" / "running.json"
        assert in_another_process(out, Shard("a", 5, 0)) == "in"
    assert not lease.path.exists()


@pytest.mark.parametrize(
    ("here", "there", "text"),
    [
        (FIRST, FIRST, "shard 0-of-2 of output_dir={out}: another run writes into it: process"),
        (WHOLE, WHOLE, "output_dir={out}: another run writes into it: process"),
        (WHOLE, FIRST, "shard 0-of-2 of output_dir={out}: another run writes into it: process"),
        (FIRST, WHOLE, "output_dir={out}: another run writes into it: process"),
    ],
)
def test_who_doesnt_go_together(out, here, there, text):
    with sole_use(out, here) as lease:
        expected = f"refused: {text.format(out=out)} {os.getpid()} on"
        assert in_another_process(out, there).startswith(expected)
        with pytest.raises(OutputError, match=r"another run writes into it"), sole_use(out, there):
            pass
        lease.require()
        if here != there:
            assert not lease_file(out, there).exists()
    assert in_another_process(out, there) == "in"


@pytest.mark.slow
@pytest.mark.parametrize(
    "shards",
    [[FIRST] * 4, [WHOLE] * 4, [WHOLE, FIRST], [FIRST, OF_THREE]],
    ids=["shard", "whole", "whole and shard", "cuts"],
)
def test_of_those_at_the_same_moment_one_gets_in_at_most(out, shards):
    for number in range(6):
        folder = out / str(number)
        answers = at_once(*[lambda s=s, f=folder: enter(f, s) for s in shards])
        expected = [1] if len(shards) == 4 else [0, 1]
        assert sum(answer == "in" for answer in answers) in expected


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("pair", [(WHOLE, FIRST), (FIRST, WHOLE)], ids=["whole", "shard"])
def test_another_that_comes_before_or_after_the_own_lease(out, monkeypatch, pair, moment):
    own, other = pair
    answers = []

    class Slow(Lease):
        def acquire(self):
            monkeypatch.setattr(lock, "Lease", Lease)
            if moment == "before":
                answers.append(enter(out, other, stack))
            super().acquire()
            if moment == "after":
                answers.append(enter(out, other, stack))
            return self

    monkeypatch.setattr(lock, "Lease", Slow)
    with contextlib.ExitStack() as stack:
        answers.append(enter(out, own, stack))
        assert [answer == "in" for answer in answers] == [moment == "before", moment == "after"]


@pytest.mark.parametrize("at_work", [False, True])
def test_a_folder_cut_otherwise_is_refused_and_nothing_left_in_it(out, at_work):
    with contextlib.ExitStack() as stack:
        if at_work:
            stack.enter_context(sole_use(out, FIRST))
        else:
            FIRST.folder(out).mkdir(parents=True)
            (FIRST.folder(out) / "manifest.json").touch()
        with pytest.raises(ConfigError) as caught, sole_use(out, OF_THREE):
            pass
        assert str(caught.value) == (
            f"shard_count=3: output_dir={out} is cut into 2 shards; take shard_count=2, or another "
            "folder"
        )
        assert [path.name for path in (out / "shards").iterdir()] == ["0-of-2"]
        with sole_use(out, SECOND), sole_use(out, Shard("a", 3, 1)):
            pass


def test_cuts_in_one_folder(out):
    """What was in a shard's folder stays, and an empty one is no cut."""
    FIRST.folder(out).mkdir(parents=True)
    with sole_use(out, OF_THREE):
        pass
    (FIRST.folder(out) / "manifest.json").touch()
    (OF_THREE.folder(out) / "manifest.json").touch()
    with pytest.raises(ConfigError), sole_use(out, FIRST):
        pass
    assert len(list(out.rglob("manifest.json"))) == 2
    assert not lease_file(out, FIRST).exists()


@pytest.mark.parametrize("shard", [FIRST, SECOND, WHOLE])
def test_the_dead_are_no_obstacle(out, shard):
    for other in (FIRST, SECOND, WHOLE):
        leave_dead(out, other)
    with sole_use(out, shard) as lease:
        assert read(lease.path)["process_start"] != "1"


def test_shards_remove_the_lease_of_a_dead_whole_run(out):
    """Or each would look for its signs of life for as long as it takes."""
    leave_dead(out, WHOLE)
    shards = [Shard("", 4, index) for index in range(4)]
    assert at_once(*[lambda s=shard: enter(out, s) for shard in shards]) == ["in"] * 4
    assert [path.name for path in out.iterdir()] == ["shards"]


def test_a_killed_run_is_no_obstacle(out):
    def work(send):
        send(enter(out, WHOLE))
        signal.pause()

    assert deaths.killed(work, 0, after_first=True) == ["in"]
    assert lease_file(out, WHOLE).exists()
    with sole_use(out, FIRST), sole_use(out, SECOND):
        pass
    with sole_use(out):
        pass


@pytest.mark.parametrize(
    "error",
    [ConfigError("x"), LeaseHeld("x", {}), OSError(5, "x"), KeyboardInterrupt("x")],
    ids=lambda error: type(error).__name__,
)
def test_an_error_in_the_block_is_not_touched(out, error):
    with pytest.raises(type(error)) as caught, sole_use(out, FIRST):
        (FIRST.folder(out) / "failures.jsonl").touch()
        raise error
    assert caught.value is error
    assert [path.name for path in FIRST.folder(out).iterdir()] == ["failures.jsonl"]


@pytest.mark.parametrize("shard", [FIRST, WHOLE])
def test_a_folder_that_cant_be_made(tmp_path, shard):
    (tmp_path / "file").touch()
    with (
        pytest.raises(OutputError, match=r"output_dir=.*/file: "),
        sole_use(tmp_path / "file", shard),
    ):
        pass
