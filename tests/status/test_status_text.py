"""A run's status in words: what becomes of many shards, odd names, and numbers not known."""

import json
import re
from collections import Counter

import pytest
import support
from fakes import small_images
from status_records import leave_lease, record_of, report_of, rewrite_run, run, shards, text_of

from vmb_d2.output.shards import Shard
from vmb_d2.status import STATES
from vmb_d2.status.text import duration


@pytest.fixture
def images(tmp_path):
    return small_images(tmp_path / "in", 24)


def test_image_lists_and_bounds_and_asides(images, out):
    run(out, images)
    rewrite_run(out, started="2000-01-01T00:00:00+00:00")
    shard = Shard("train.12345678", 3, 1)
    run(out, images, shard, record={"shard": shard.describe(images)})
    lines = text_of(out)
    assert lines[:4] == [
        f"{out}: 3 shards of 1 list, as far as they have begun",
        "shards  1 done, 2 not started",
        "images  8 of at most 24 done (33 %), 0 failed, at most 16 to do",
        "besides an earlier run without shards, done (not counted)",
    ]
    assert [re.split(r"  +", line)[2] for line in lines[6:8]] == ["0 of at most 8"] * 2
    assert lines[-1] == "  2 shards: give the same command again as before; it isn't in writing"


def test_images_whose_number_is_not_in_writing(images, out):
    run(out, images, shards(3)[0], record={})
    line = "images  8 of 8 done (100 %), 0 failed, 0 to do, and those of 2 shards, whose number"
    assert text_of(out)[2] == f"{line} isn't in writing"


def test_of_many_commands_the_first_ten_are_printed(images, out):
    first = shards(14)[0]
    run(out, images, first, record=record_of(out, images, first, list="a.txt"))
    lines = text_of(out)
    assert lines[-1] == "  # and 3 more commands: --all lists them"
    commands = [line for line in text_of(out, everything=True) if "extract.py" in line]
    assert len(commands) == 13
    assert lines[-11:-1] == commands[:10]


def test_names_with_control_characters_do_no_harm(images, out):
    run(out, images, shards(2)[0])
    rewrite_run(shards(2)[0].folder(out), state="failed", error="\x1b[2Jgone\r\n\x9b")
    lines = text_of(out)
    assert "?[2Jgone???" in "\n".join(lines)
    assert not re.search(r"[\x00-\x1f\x7f-\x9f]", "".join(lines))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (3599, "59 min"),
        (3600, "1 h 0 min"),
        (7500, "2 h 5 min"),
        (2 * 86400 - 1, "47 h 59 min"),
        (3 * 86400 + 4 * 3600, "3 d 4 h"),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def synthetic_record(out, shard, of_images, state):
    """The record of a shard of that many images, as if it had run. Returns its counts."""
    begin, end = shard.bounds(of_images)
    counts = {"images": end - begin, "done": 1, "failed": 0}
    if state == "done":
        counts["done"] = counts["images"]
    elif state == "done with failures":
        counts["failed"] = counts["images"] - 1
    noted = {"stopped": "interrupted", "failed": "failed", "running": "running", "dead": "running"}
    content = {
        "settings": {},
        "configuration": {"input": {}},
        "counts": counts,
        "shard": {"source": "", "index": shard.index, "count": 1000, "of_images": of_images},
        "command": {"overrides": ["a=b"], "hydra": [], "folder": str(support.ROOT)},
        "runs": [{"state": noted.get(state, "finished"), "error": "no memory"}],
    }
    shard.folder(out).mkdir(parents=True)
    (shard.folder(out) / "manifest.json").write_text(json.dumps(content))
    if state == "running":
        leave_lease(shard.folder(out), note={**counts, "extracted": 20, "seconds": 10})
    return counts


def test_a_thousand_shards(out):
    states = [state for state in STATES if state != "damaged"]
    state_of = {index: states[index % len(states)] for index in range(1000)}
    done = failed = 0
    for shard in shards(1000):
        if state_of[shard.index] != "not started":
            counts = synthetic_record(out, shard, 2718, state_of[shard.index])
            done, failed = done + counts["done"], failed + counts["failed"]
    expected = Counter(state_of.values())
    unfinished = ("dead", "stopped", "failed", "not started")
    lines = text_of(out)
    assert lines[1] == "shards  " + ", ".join(f"{expected[state]} {state}" for state in states)
    share = 100 * done // 2718
    left = 2718 - done - failed
    assert lines[2] == f"images  {done} of 2718 done ({share} %), {failed} failed, {left} to do"
    assert lines[3] == f"rate    {2 * expected['running']}.00 images/s"
    for state in unfinished:
        assert f"  # and {expected[state] - 10} more {state}: --all lists them" in lines
        assert sum(bool(re.match(rf"\d+-of-1000  {state} ", line)) for line in lines) == 10
    assert f"  # and {expected['done with failures'] - 10} more files: --all lists them" in lines
    assert len(lines) < 80
    choice = ",".join(str(i) for i in range(1000) if state_of[i] in unfinished)
    command = f"python tools/extract.py -m a=b shard.count=1000 shard.index={choice}"
    assert lines[-1] == f"  {command}"
    found = report_of(out)
    names = [shard.name for shard in shards(1000)]
    assert [(part["name"], part["state"]) for part in found["parts"]] == [
        (name, state_of[index]) for index, name in enumerate(names)
    ]
    every = text_of(out, everything=True)
    listed = [line.split()[0] for line in every if re.match(r"\d+-of-1000", line)]
    assert sorted(listed) == [names[i] for i in range(1000) if state_of[i] in unfinished]
    assert sum("failures.jsonl" in line for line in every) == expected["done with failures"]
    assert not any("--all" in line for line in every)


def test_the_documentation_explains_every_state():
    text = (support.ROOT / "docs" / "slurm.md").read_text()
    section = text.split("## How far it is\n")[1].split("\n## ")[0]
    assert re.findall(r"^\| (\w[\w ]*) \|", section, re.MULTILINE) == ["state", *STATES]
