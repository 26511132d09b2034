"""Who may write into an output folder beside whom: shards of one cut, or one whole run."""

import contextlib
import json
import os

import deaths
import pytest
from races import at_once

from vmb_d2.errors import ConfigError, OutputError
from vmb_d2.output.lock import LEASE_NAME, sole_use
from vmb_d2.output.shards import Shard
from vmb_d2.utils.lease import read, this_process

FIRST, SECOND, OF_THREE = Shard("", 2, 0), Shard("", 2, 1), Shard("", 3, 1)
WHOLE = None

_kept = contextlib.ExitStack()  # as long as its process lives


@pytest.fixture
def out(tmp_path):
    return tmp_path / "new" / "out"


def enter(folder, shard):
    """Use the folder as long as this process lives."""
    try:
        _kept.enter_context(sole_use(folder, shard))
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
    dead = {**this_process(), "process_start": "1", "count": 1}
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
    ("here", "there"), [(FIRST, FIRST), (WHOLE, WHOLE), (WHOLE, FIRST), (FIRST, WHOLE)]
)
def test_who_doesnt_go_together(out, here, there):
    what = f"shard 0-of-2 of output_dir={out}" if there else f"output_dir={out}"
    with sole_use(out, here) as lease:
        expected = f"refused: {what}: another run writes into it: process {os.getpid()} on"
        assert in_another_process(out, there).startswith(expected)
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


def test_a_folder_cut_otherwise_is_refused_and_nothing_left_in_it(out):
    """An empty folder is no cut."""
    OF_THREE.folder(out).mkdir(parents=True)
    with sole_use(out, FIRST):
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


@pytest.mark.parametrize("shard", [FIRST, WHOLE])
def test_a_folder_that_cant_be_made(tmp_path, shard):
    (tmp_path / "file").touch()
    with (
        pytest.raises(OutputError, match=r"output_dir=.*/file: "),
        sole_use(tmp_path / "file", shard),
    ):
        pass
