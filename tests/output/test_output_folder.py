"""Who may write into an output folder beside whom: shards of one cut, or one whole run."""

import contextlib
import json
import os
import signal

import deaths
import pytest
from races import at_once

from vmb_d2.errors import ConfigError, OutputError
from vmb_d2.output import lock as output_folder
from vmb_d2.output.lock import LEASE_NAME, sole_use
from vmb_d2.output.shards import Shard
from vmb_d2.utils.lease import Lease, LeaseHeld, read, this_process

FIRST, SECOND = Shard("", 2, 0), Shard("", 2, 1)
WHOLE = None

_kept = contextlib.ExitStack()  # as long as its process lives


@pytest.fixture
def out(tmp_path):
    return tmp_path / "new" / "out"


def enter(folder, shard):
    """Use the folder as long as this process lives."""
    try:
        _kept.enter_context(sole_use(folder, shard))
    except OutputError as error:
        return f"refused: {error}"
    return "in"


def in_another_process(folder, shard):
    (answer,) = deaths.in_child(lambda send: send(enter(folder, shard)))
    return answer


def lease_file(folder, shard):
    return (shard.folder(folder) if shard else folder) / LEASE_NAME


def test_the_folder_is_made_and_kept(out):
    with sole_use(out) as lease:
        assert lease.path == out / "running.json"
        lease.require()
    assert list(out.iterdir()) == []
    with sole_use(out, SECOND) as lease:
        assert lease.path == out / "shards" / "1-of-2" / "running.json"
    assert not lease.path.exists()


def test_shards_write_beside_each_other(out):
    with sole_use(out, FIRST), sole_use(out, SECOND):
        assert in_another_process(out, Shard("a", 5, 0)) == "in"


@pytest.mark.parametrize(
    ("here", "there", "text"),
    [
        (FIRST, FIRST, "shard 0-of-2 of output.dir={out}: another run writes into it: process"),
        (WHOLE, WHOLE, "output.dir={out}: another run writes into it: process"),
        (WHOLE, FIRST, "shard 0-of-2 of output.dir={out}: another run writes into it: process"),
        (FIRST, WHOLE, "output.dir={out}: another run writes into it: process"),
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


def test_one_that_is_refused_lets_go_of_what_it_had_meanwhile(out):
    with sole_use(out, FIRST), pytest.raises(OutputError), sole_use(out):
        pass
    assert in_another_process(out, WHOLE) == "in"
    with sole_use(out), pytest.raises(OutputError), sole_use(out, FIRST):
        pass
    assert in_another_process(out, FIRST) == "in"


@pytest.mark.parametrize("shard", [FIRST, WHOLE])
def test_of_the_same_at_the_same_moment_one_gets_in(out, shard):
    for number in range(5):
        answers = at_once(*[lambda n=number: enter(out / str(n), shard)] * 4)
        assert sum(answer == "in" for answer in answers) == 1


def test_a_whole_run_and_a_shard_at_the_same_moment_never_both_get_in(out):
    for number in range(8):
        whole, shard = at_once(
            lambda n=number: enter(out / str(n), WHOLE), lambda n=number: enter(out / str(n), FIRST)
        )
        assert (whole, shard) != ("in", "in")


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("pair", [(WHOLE, FIRST), (FIRST, WHOLE)], ids=["whole", "shard"])
def test_another_that_comes_in_between_is_seen_or_sees(out, monkeypatch, pair, moment):
    """Between the look at the others and the lease, or between the lease and the look."""
    own, other = pair
    answers = []

    class Slow(Lease):
        def acquire(self):
            monkeypatch.setattr(output_folder, "Lease", Lease)
            if moment == "before":
                answers.append(inner.enter_context(contextlib.closing(Attempt(out, other))))
            super().acquire()
            if moment == "after":
                answers.append(inner.enter_context(contextlib.closing(Attempt(out, other))))
            return self

    monkeypatch.setattr(output_folder, "Lease", Slow)
    with contextlib.ExitStack() as inner, contextlib.closing(Attempt(out, own)) as outer:
        (between,) = answers
        assert [outer.succeeded, between.succeeded].count(True) == 1
        assert between.succeeded == (moment == "before")


class Attempt:
    """To use a folder, until it is closed."""

    def __init__(self, folder, shard):
        self._stack = contextlib.ExitStack()
        try:
            self._stack.enter_context(sole_use(folder, shard))
            self.succeeded = True
        except (OutputError, ConfigError):
            self.succeeded = False

    def close(self):
        self._stack.close()


@pytest.mark.parametrize("at_work", [False, True])
def test_a_folder_cut_otherwise_is_refused_and_nothing_left_in_it(out, at_work):
    with contextlib.ExitStack() as stack:
        if at_work:
            stack.enter_context(sole_use(out, FIRST))
        else:
            FIRST.folder(out).mkdir(parents=True)
            (FIRST.folder(out) / "manifest.json").touch()
        with pytest.raises(ConfigError) as caught, sole_use(out, Shard("", 3, 1)):
            pass
        assert str(caught.value) == (
            f"shard.count=3: output.dir={out} is cut into 2 shards; give shard.count=2, or another "
            "folder"
        )
        assert [path.name for path in (out / "shards").iterdir()] == ["0-of-2"]
        with sole_use(out, SECOND), sole_use(out, Shard("a", 3, 1)):
            pass


def test_a_folder_cut_otherwise_is_refused_and_what_was_in_it_stays(out):
    for shard in (FIRST, Shard("", 3, 1)):
        shard.folder(out).mkdir(parents=True)
        (shard.folder(out) / "manifest.json").touch()
    with pytest.raises(ConfigError), sole_use(out, FIRST):
        pass
    assert sorted(path.name for path in out.rglob("manifest.json")) == ["manifest.json"] * 2
    assert not lease_file(out, FIRST).exists()


def test_a_cut_of_which_nothing_was_ever_written_is_none(out):
    Shard("", 3, 1).folder(out).mkdir(parents=True)
    with sole_use(out, FIRST):
        pass


def test_a_folder_that_is_removed_while_it_is_looked_at(out, monkeypatch):
    monkeypatch.setattr(output_folder, "shards_in", lambda folder: [Shard("", 3, 1)])
    with sole_use(out, FIRST):
        pass


def test_different_cuts_at_the_same_moment_never_both_get_in(out):
    def attempt(folder, shard):
        try:
            return enter(folder, shard)
        except ConfigError as error:
            return f"refused: {error}"

    for number in range(8):
        folder = out / str(number)
        answers = at_once(
            lambda folder=folder: attempt(folder, FIRST),
            lambda folder=folder: attempt(folder, Shard("", 3, 0)),
        )
        assert answers != ["in", "in"]
        for answer in answers:
            assert answer == "in" or "is cut into" in answer


@pytest.mark.parametrize("shard", [FIRST, SECOND, WHOLE])
def test_the_dead_are_no_obstacle(out, shard):
    for other in (FIRST, SECOND, WHOLE):
        lease_file(out, other).parent.mkdir(parents=True, exist_ok=True)
        dead = {**this_process(), "process_start": "1", "token": "its", "count": 1}
        lease_file(out, other).write_text(json.dumps(dead))
    with sole_use(out, shard) as lease:
        assert read(lease.path)["process_start"] != "1"


def test_of_many_shards_one_takes_a_dead_whole_run_away(out):
    """Or each would look for its signs of life for as long as it takes."""
    out.mkdir(parents=True)
    dead = {**this_process(), "process_start": "1", "token": "its", "count": 1}
    lease_file(out, WHOLE).write_text(json.dumps(dead))
    shards = [Shard("", 6, index) for index in range(6)]
    assert at_once(*[lambda s=shard: enter(out, s) for shard in shards]) == ["in"] * 6
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
    [
        ConfigError("x"),
        OutputError("x"),
        LeaseHeld("x", {}),
        OSError(5, "x"),
        KeyboardInterrupt("x"),
        SystemExit(3),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_in_the_block_is_not_touched(out, error):
    with pytest.raises(type(error)) as caught, sole_use(out, FIRST):
        (FIRST.folder(out) / "failures.jsonl").touch()
        raise error
    assert caught.value is error
    assert (error.__cause__, error.__context__) == (None, None)
    assert [path.name for path in FIRST.folder(out).iterdir()] == ["failures.jsonl"]


@pytest.mark.parametrize("shard", [FIRST, WHOLE])
def test_a_folder_that_cant_be_made(tmp_path, shard):
    (tmp_path / "file").touch()
    with (
        pytest.raises(OutputError, match=r"output\.dir=.*/file: "),
        sole_use(tmp_path / "file", shard),
    ):
        pass
