"""tools/status.py: what it prints and returns, and how little it touches."""

import importlib
import json
import os
import re
import sys
import time

import pytest
import support
from fakes import small_images
from status_records import (
    as_of_another_machine,
    fail,
    interrupt,
    leave_lease,
    rewrite_run,
    run,
    shards,
    spoil,
)

from vmb_d2.output.shards import Shard
from vmb_d2.status import STATES
from vmb_d2.status.text import duration

# The program, with every file and folder it touches below a folder listed.
WATCHED = """
import json, os, runpy, sys
folder, seen = sys.argv[1], []

def note(event, arguments):
    if event in ("open", "os.listdir", "os.scandir", "os.mkdir", "os.rename", "os.remove"):
        path = os.path.abspath(os.fsdecode(arguments[0] if arguments[0] is not None else "."))
        if path.startswith(folder):
            mode = arguments[1] if event == "open" else None
            flags = arguments[2] if event == "open" else 0
            writes = bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC))
            seen.append([event, os.path.relpath(path, folder), writes])

sys.addaudithook(note)
sys.path.insert(0, "tools")
sys.argv = ["status.py", folder]
try:
    runpy.run_path("tools/status.py", run_name="__main__")
except SystemExit as end:
    print(json.dumps([end.code, "torch" in sys.modules, seen]))
"""


@pytest.fixture
def status(monkeypatch, capsys):
    """Runs the command in this process. Returns its exit status, and its lines on stdout."""
    monkeypatch.syspath_prepend(support.ROOT / "tools")
    monkeypatch.chdir(support.ROOT)
    module = importlib.import_module("status")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["status.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            sys.exit(module.program())
        return end.value.code, capsys.readouterr().out.splitlines()

    return run


@pytest.fixture
def images(tmp_path):
    return small_images(tmp_path / "in", 24)


@pytest.fixture
def sharded(images, out, monkeypatch):
    """An output folder with a shard in every state."""
    done, failures, running, dead, stopped, failed, damaged, _ = shards(8)
    run(out, images, done)
    spoil(images[4])
    run(out, images, failures)
    for shard in (running, dead):
        interrupt(out, images, shard)
        rewrite_run(shard.folder(out), state="running")
        note = {"images": 3, "done": 1, "failed": 0, "extracted": 1, "seconds": 7200}
        leave_lease(shard.folder(out), note=note)
    as_of_another_machine(dead.folder(out), 7500)
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "17")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "4")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    interrupt(out, images, stopped)
    (out / "logs" / "17_4").mkdir(parents=True)
    fail(out, images, failed)
    run(out, images, damaged)
    (damaged.folder(out) / "manifest.json").write_text("{")
    return out


def test_at_a_glance(status, sharded):
    code, lines = status(sharded)
    assert code == 1
    place = sharded / "shards"
    since = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(mtime(place / "3-of-8")))
    (ended,) = re.findall(r"interrupted at (\S+ \S+ UTC)", "\n".join(lines))
    head, table = lines[:6], lines[6:13]
    assert head == [
        f"{sharded}: 8 shards",
        "shards  1 done, 1 done with failures, 1 running, 1 dead, 1 stopped, 1 failed, 1 damaged, "
        "1 not started",
        "images  8 of 24 done (33 %), 1 failed, 15 to do",
        "rate    7200.0 s/image",
        "left    4 h 0 min for what runs, 30 h 0 min for all, if the rate stays as it is",
        "",
    ]
    assert [re.split(r"  +", line) for line in table[:4]] == [
        ["shard", "state", "done", "failed", "where"],
        ["3-of-8", "dead", "1 of 3", "0", "node7, job 17_6, restart 1",
         f"no sign of life since {since}, 2 h 5 min ago"],
        ["4-of-8", "stopped", "1 of 3", "0", f"{os.uname().nodename}, job 17_4, restart 2",
         f"interrupted at {ended}; log in {sharded}/logs/17_4"],
        ["5-of-8", "failed", "0 of 3", "0", f"{os.uname().nodename}, job 17_4, restart 2",
         f"/no/such.pth: No such file or directory; log in {sharded}/logs/17_4"],
    ]  # fmt: skip
    assert f"{place}/6-of-8/manifest.json: can't be read: " in table[4]
    assert table[4].endswith("; mend or remove that file to go on")
    assert re.split(r"  +", table[5]) == ["7-of-8", "not started", "0 of 3", "0"]
    assert lines[12:] == [
        "",
        "failed images",
        f"  {place}/1-of-8/failures.jsonl  1  (1 read)",
        "",
        "to finish the rest:",
        "  # less what waits in the cluster's queue, which goes on by itself: see squeue",
        f"  python tools/extract.py -m output.dir={sharded} shard.count=8 'shard.index=range(3,8)'",
    ]


def mtime(folder):
    return (folder / "running.json").stat().st_mtime


def test_columns_are_aligned(status, sharded):
    _, lines = status(sharded)
    table = lines[6:12]
    state, where = table[0].index("state"), table[0].index("where")
    for line in table[1:5]:
        assert line[state - 2 : state] == "  "
        assert line[state] != " "
        assert line[where - 2 : where] == "  "
        assert line[where - 3] in "0d"
    assert not any(line != line.rstrip() for line in lines)


def test_json_says_the_same(status, sharded):
    code, lines = status(sharded)
    json_code, text = status(sharded, "--json")
    found = json.loads("\n".join(text))
    assert code == json_code == 1
    assert lines[0] == f"{found['folder']}: {len(found['parts'])} shards"
    states = ", ".join(f"{count} {state}" for state, count in found["states"].items())
    assert lines[1] == f"shards  {states}"
    assert list(found["states"]) == list(STATES)
    numbers = [int(n) for n in re.findall(r"\d+", lines[2])]
    images = found["images"]
    keys = ("done", "images", "failed", "left")
    assert [numbers[0], numbers[1], numbers[3], numbers[4]] == [images[key] for key in keys]
    assert images["at_most"] is False
    assert lines[3] == f"rate    {1 / found['images_per_second']:.1f} s/image"
    for seconds in found["seconds_left"].values():
        assert duration(seconds) in lines[4]
    for part in found["parts"]:
        listed = [line for line in lines if line.startswith(part["name"])]
        if part["state"] in ("done", "done with failures", "running"):
            assert listed == []
            continue
        (line,) = listed
        assert re.split(r"  +", line)[1:4] == [
            part["state"],
            f"{part['done']} of {part['images']}",
            str(part["failed"]),
        ]
        for key in ("host", "job", "reason", "log"):
            assert (part[key] or "") in line
    (file,) = found["failures"]
    assert file == {
        "path": f"{sharded}/shards/1-of-8/failures.jsonl",
        "images": 1,
        "stages": {"read": 1},
    }
    assert found["next"]["what"] == "finish"
    assert [f"  {command}" for command in found["next"]["commands"]] == lines[-1:]
    assert (found["complete"], found["sharded"], found["lists"]) == (False, True, 0)
    assert (found["aside"], found["problems"]) == (None, [])


def test_it_reads_two_small_files_a_shard_and_writes_nothing(sharded):
    before = {path: path.stat().st_mtime_ns for path in sharded.rglob("*")}
    done = support.run_tool("-c", WATCHED, sharded)
    assert done.stderr == ""
    code, torch_imported, seen = json.loads(done.stdout.splitlines()[-1])
    assert code == 1
    assert not torch_imported
    assert not any(writes for *_, writes in seen)
    assert [path for event, path, _ in seen if event != "open"] == ["shards"]
    opened = {path for event, path, _ in seen if event == "open"}
    names = ("manifest.json", "running.json")
    expected = {f"shards/{i}-of-8/{name}" for i in range(7) for name in names}
    assert opened == expected | set(names) | {"shards/1-of-8/failures.jsonl"}
    assert len(seen) < 2 * len(opened)
    assert {path: path.stat().st_mtime_ns for path in sharded.rglob("*")} == before


def test_exit_statuses(status, images, out, tmp_path):
    assert status(tmp_path / "none") == (2, [])
    assert status(tmp_path / "in") == (2, [])
    run(out, images, shards(2)[0])
    assert status(out)[0] == 1
    spoil(images[12])
    run(out, images, shards(2)[1])
    assert status(out)[0] == status(out, "--json")[0] == 1
    images[12:13] = small_images(tmp_path / "other", 1)
    os.replace(images[12].path, tmp_path / "in" / "image_012.png")
    images[12] = images[12]._replace(path=str(tmp_path / "in" / "image_012.png"), name="image_012")
    run(out, images, shards(2)[1])
    assert status(out) == (
        0,
        [
            f"{out}: 2 shards",
            "shards  2 done",
            "images  24 of 24 done (100 %), 0 failed, 0 to do",
            "",
            "everything is done",
        ],
    )


def test_without_a_record_it_is_one_line(tmp_path):
    for folder, reason in ((tmp_path, "no record of a run in it"), ("/no", "no such folder")):
        done = support.run_tool("tools/status.py", folder)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == f"error: {folder}: {reason}\n"


def test_a_run_without_shards_is_a_few_lines(status, images, out):
    run(out, images)
    head = "images  24 of 24 done (100 %), 0 failed, 0 to do"
    assert status(out) == (0, [f"{out}: done", head, "", "everything is done"])
    note = {"images": 48, "done": 24, "failed": 1, "extracted": 12, "seconds": 6}
    leave_lease(out, note=note)
    assert status(out) == (
        1,
        [
            f"{out}: running",
            "images  24 of 48 done (50 %), 1 failed, 23 to do",
            "rate    2.00 images/s",
            "left    11 s, if the rate stays as it is",
            "",
            "failed images",
            f"  {out}/failures.jsonl  1",
            "",
            "nothing to do but wait",
        ],
    )
    leave_lease(out)
    assert status(out)[1][2:4] == ["rate    not known yet", "left    not known yet"]


def test_what_is_done_but_for_failures(status, images, out):
    spoil(images[3])
    run(out, images, Shard(), formats=["lmdb"])
    code, lines = status(out)
    assert code == 1
    assert lines[-2:] == [
        "all is done but for the failed images; to try them again:",
        f"  python tools/extract.py -m output.dir={out} shard.count=1 shard.index=0",
    ]


def test_all_lists_all(status, images, out):
    run(out, images, shards(24)[0])
    _, lines = status(out)
    _, every = status(out, "--all")
    assert len(every) == len(lines) + 23 - 11
    assert [line for line in lines if line not in every] == [
        "  # and 13 more not started: --all lists them"
    ]


def test_help_names_every_option(status, capsys):
    with pytest.raises(SystemExit) as end:
        importlib.import_module("status").parser().parse_args(["--help"])
    text = capsys.readouterr().out
    assert end.value.code == 0
    assert "Exit status: 0 if everything is done; 1 if" in text
    for option in ("--all", "--json", "OUTPUT_DIR"):
        assert option in text
