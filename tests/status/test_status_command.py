"""tools/status.py: what it prints and returns."""

import json
import os
import re
import shlex
import subprocess
import sys
import time

import pytest
import support
from fakes import small_images
from status_records import (
    every_state,
    interrupt,
    leave_lease,
    rewrite_run,
    run,
    shards,
    spoil,
)

from vmb_d2.output.shards import Shard
from vmb_d2.status import STATES
from vmb_d2.stores.lmdb_store import LMDBReader

TOOL = support.ROOT / "tools" / "status.py"


@pytest.fixture
def status(monkeypatch, capsys):
    """Runs the command in this process. Returns its exit status, and its lines on stdout."""
    monkeypatch.chdir(support.ROOT)
    command = support.in_this_process(TOOL, monkeypatch, capsys)

    def run(*arguments):
        code, out, _ = command(*arguments)
        return code, out.splitlines()

    return run


@pytest.fixture
def images(tmp_path):
    return small_images(tmp_path / "in", 27)


@pytest.mark.slow
def test_at_a_glance(status, images, out):
    every_state(out, images)
    place, host = out / "shards", os.uname().nodename
    os.utime(place / "2-of-9" / "running.json", (time.time() - 6010,) * 2)
    code, lines = status(out)
    assert code == 1
    signs = [(place / f"{i}-of-9" / "running.json").stat().st_mtime for i in (2, 6)]
    since = [time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(sign)) for sign in signs]
    (ended,) = re.findall(r"interrupted at (\S+ \S+ UTC)", "\n".join(lines))
    done, left = map(int, re.findall(r"(\d+) (?:of 27|to do)", lines[2]))
    assert done + left == 26
    assert lines[:6] == [
        f"{out}: 9 shards",
        "shards  1 done, 1 done with failures, 1 running, 2 dead, 1 stopped, 1 failed, 1 damaged, "
        "1 not started",
        f"images  {done} of 27 done ({100 * done // 27} %), 1 failed, {left} to do",
        "rate    7200.0 s/image",
        f"left    {2 * left} h 0 min at this rate",
        "",
    ]
    table = [re.split(r"  +", line) for line in lines[6:13]]
    stopped = table[3][2]
    assert [[*row[:2], *row[3:]] for row in table[:5]] == [
        ["shard", "state", "failed", "where"],
        ["2-of-9", "dead", "0", host, f"no sign of life since {since[0]}, 1 h 40 min ago"],
        ["6-of-9", "dead", "0", "node7, job 17_6, restart 1",
         f"no sign of life since {since[1]}, 2 h 5 min ago"],
        ["4-of-9", "stopped", "0", f"{host}, job 17_4, restart 2",
         f"interrupted at {ended}; log in {out}/logs/17_4"],
        ["5-of-9", "failed", "0", f"{host}, job 17_4, restart 2",
         f"/no/such.pth: No such file or directory; log in {out}/logs/17_4"],
    ]  # fmt: skip
    assert re.fullmatch(r"[12] of 3", stopped)
    assert f"{place}/8-of-9/manifest.json: can't be read: " in lines[11]
    assert lines[11].endswith("; mend or remove that file to go on")
    assert table[6] == ["7-of-9", "not started", "0 of 3", "0"]
    column = lines[6].index("where")
    assert {line[column - 2 : column] for line in lines[6:13]} <= {"  ", ""}
    assert lines[13:] == [
        "",
        "failed images",
        f"  {place}/1-of-9/failures.jsonl  1",
        "",
        "to finish the rest, run the same command again: what is done is skipped",
        "(what waits in the cluster's queue goes on by itself, see squeue)",
    ]
    code, text = status(out, "--json")
    found = json.loads("\n".join(text))
    assert code == 1
    assert list(found["states"]) == list(STATES)
    assert found["images"] == {
        "images": 27, "done": done, "failed": 1, "left": left,
    }  # fmt: skip
    assert found["images_per_second"] == 1 / 7200
    assert found["seconds_left"] == left * 7200
    assert (found["complete"], found["sharded"], found["notes"]) == (False, True, [])
    assert (found["next"], found["commands"]) == ("finish", [])
    rows = {row[0]: row for row in table[1:]}
    for part in found["parts"]:
        if row := rows.get(part["name"]):
            counts = f"{part['done']} of {part['images']}"
            assert row[1:4] == [part["state"], counts, str(part["failed"])]
    assert found["parts"][4]["log"] == f"{out}/logs/17_4"
    assert found["parts"][6]["last_sign_of_life"][:16] == since[1][:16].replace(" ", "T")


def test_a_run_without_shards_is_a_few_lines(status, images, out):
    run(out, images)
    head = "images  27 of 27 done (100 %), 0 failed, 0 to do"
    assert status(out) == (0, [f"{out}: done", head, "", "everything is done"])
    note = {"images": 54, "done": 27, "failed": 1, "extracted": 12, "seconds": 6}
    leave_lease(out, note=note)
    assert status(out) == (
        1,
        [
            f"{out}: running",
            "images  27 of 54 done (50 %), 1 failed, 26 to do",
            "rate    2.00 images/s",
            "left    13 s at this rate",
            "",
            "failed images",
            f"  {out}/failures.jsonl  1",
            "",
            "nothing to do but wait",
        ],
    )
    leave_lease(out)
    assert status(out)[1][2:4] == ["rate    not known yet", "left    not known"]


def test_failed_images_are_status_1_until_they_are_done(status, images, out):
    intact = (out.parent / "in" / "image_003.png").read_bytes()
    spoil(images[3])
    run(out, images, Shard())
    code, lines = status(out)
    assert code == status(out, "--json")[0] == 1
    assert lines[-1] == (
        "all is done but for the failed images; the same command again tries them again"
    )
    (out.parent / "in" / "image_003.png").write_bytes(intact)
    run(out, images, Shard())
    assert status(out)[0] == 0


def test_unknown_numbers(status, images, out):
    run(out, images, shards(3)[0], record={})
    assert status(out)[1][2].endswith("0 to do, and an unknown number in 2 parts")


def test_control_characters_do_no_harm(status, images, out):
    run(out, images, shards(2)[0])
    rewrite_run(shards(2)[0].folder(out), state="failed", error="\x1b[2Jgone\r\n\x9b")
    text = "".join(status(out)[1])
    assert "?[2Jgone???" in text
    assert not re.search(r"[\x00-\x1f\x7f-\x9f]", text)


def test_the_packing_command_packs(tmp_path, status, images):
    out = tmp_path / "out put"
    for shard in shards(2):
        run(out, images, shard, formats=["mmf", "lmdb"])
    code, lines = status(out)
    rest = f"'{out}' --from lmdb --to lmdb --output '{out}'"
    assert (code, lines[-1]) == (0, f"  python tools/pack.py {rest}")
    elsewhere = support.run_tool(TOOL, out, cwd=tmp_path)
    command = elsewhere.stdout.splitlines()[-1].strip()
    assert command == f"python {support.ROOT}/tools/pack.py {rest}"
    program = [sys.executable, *shlex.split(command)[1:]]
    subprocess.run(program, cwd=tmp_path, check=True, capture_output=True)
    with LMDBReader(out / "features.lmdb") as reader:
        assert len(list(reader.names())) == 27
    assert status(out)[1][-1] == "everything is done"


@pytest.mark.slow
def test_the_same_command_finishes_what_was_killed(status, images, out):
    """After a death, an interruption, a shard that hasn't begun, in any order."""
    every_state(out, images)
    (out / "shards" / "8-of-9" / "manifest.json").unlink()
    (out / "shards" / "3-of-9" / "running.json").unlink()
    os.replace(images[5].path, images[4].path)  # the image that couldn't be read
    small = small_images(out.parent / "more", 6)
    os.replace(small[5].path, images[5].path)
    interrupt(out, images, shards(9)[7])
    (out / "shards" / "6-of-9" / "running.json").unlink()
    for shard in shards(9):
        run(out, images, shard)
    assert status(out)[0] == 0


def test_a_thousand_shards(status, out):
    """Their records are made up."""
    noted = {"stopped": "interrupted", "failed": "failed", "dead": "running"}
    states = [state for state in STATES if state not in ("damaged", "running")]
    count = {state: 0 for state in states}
    for shard in shards(1000):
        state = states[shard.index % len(states)]
        count[state] += 1
        if state == "not started":
            continue
        begin, end = shard.bounds(2718)
        done = end - begin - (state == "done with failures")
        content = {
            "settings": {},
            "configuration": {"input": {}},
            "counts": {"images": end - begin, "done": done, "failed": end - begin - done},
            "shard": {"of_images": 2718},
            "runs": [{"state": noted.get(state, "finished"), "error": "no memory"}],
        }
        shard.folder(out).mkdir(parents=True)
        (shard.folder(out) / "manifest.json").write_text(json.dumps(content))
    _, lines = status(out)
    assert lines[1] == "shards  " + ", ".join(f"{count[state]} {state}" for state in states)
    failed = count["done with failures"]
    assert re.fullmatch(rf"images  (\d+) of 2718 done \(\d+ %\), {failed} failed, .*", lines[2])
    for state in ("dead", "stopped", "failed", "not started"):
        assert f"  # and {count[state] - 10} more {state}: --all lists them" in lines
        assert sum(bool(re.match(rf"\d+-of-1000  {state} ", line)) for line in lines) == 10
    assert f"  # and {failed - 10} more files: --all lists them" in lines
    assert len(lines) < 80
    _, every = status(out, "--all")
    assert sum("not started  " in line for line in every) == count["not started"]


def test_without_a_record_it_is_one_line(tmp_path):
    for folder, reason in ((tmp_path, "no record of a run in it"), ("/no", "no such folder")):
        done = support.run_tool(TOOL, folder)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == f"error: {folder}: {reason}\n"


def test_help_and_documentation(status):
    text = "\n".join(status("--help")[1])
    for option in ("--all", "--json", "OUTPUT_DIR", "Exit status: 0 if everything is done; 1 if"):
        assert option in text
    docs = (support.ROOT / "docs" / "slurm.md").read_text()
    section = docs.split("## How far it is\n")[1].split("\n## ")[0]
    assert re.findall(r"^\| (\w[\w ]*) \|", section, re.MULTILINE) == ["state", *STATES]
