"""The commands that tools/status.py prints, pasted into a shell: they finish what is left."""

import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import support
from status_records import shards
from support import TINY_FPN

from reference import goldens
from vmb_d2.status import next_step, read_status
from vmb_d2.stores.lmdb_store import LMDBReader


def commands(out, here=support.ROOT):
    following = next_step(read_status(out), here, support.ROOT / "tools")
    assert (following.unknown, following.remarks) == ([], [])
    return following.commands


def paste(command, cwd=support.ROOT):
    """What a shell makes of a command."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "VMB_D2_CACHE": str(support.scratch() / "cache"),
    }
    shell = ["bash", "-c", command]
    done = subprocess.run(
        shell, cwd=cwd, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    return done


def test_the_commands_finish_a_sweep_over_lists_with_odd_names(tmp_path):
    """Hydra's quotes, a list in brackets, spaces and an equals sign, from another folder."""
    source = tmp_path / "my photos=1"
    support.links(source, "coffee.png", "rocket.jpg", "chelsea.png", "camera.png")
    (tmp_path / "a b=1.txt").write_text("coffee.png\nrocket.jpg\n")
    (tmp_path / "c.txt").write_text("chelsea.png\n")
    (tmp_path / "d,e.txt").write_text("camera.png\n")
    one, two, three = (f"'{tmp_path / name}'" for name in ("a b=1.txt", "c.txt", "d,e.txt"))
    out = tmp_path / "out put"
    options = [
        *support.tiny_options(TINY_FPN, None, f"'{out}'"),
        f"input.dir='{source}'",
        "output.format=[mmf,lmdb]",
        "extract.num_features=5",
    ]
    begun = [f"input.list={one},[{two},{three}]", "shard.count=2", "shard.index=0"]
    paste(shlex.join(["python", "tools/extract.py", "-m", *options, *begun]))
    status = read_status(out)
    assert [part.state for part in status.parts] == ["done", "not started"] * 2
    (command,) = commands(out, here=tmp_path)
    paste(command, cwd=tmp_path)
    status = read_status(out)
    assert [part.state for part in status.parts] == ["done"] * 4
    assert status.is_complete
    (merge,) = commands(out, here=tmp_path)
    paste(merge, cwd=tmp_path)
    assert commands(out, here=tmp_path) == []
    with LMDBReader(out / "features.lmdb") as reader:
        assert sorted(reader.names()) == ["camera", "chelsea", "coffee", "rocket"]


def test_the_command_finishes_a_shard_that_was_killed_and_tries_again_what_failed(tmp_path):
    source = support.links(tmp_path / "in", "coffee.png", "rocket.jpg")
    for name in ("a.png", "b.png", "c.png"):
        (source / name).write_text("no image")
    out, options = tmp_path / "out", ["shard.count=5", "input.max_failures=1"]
    assert support.extract_tiny(TINY_FPN, source, out, *options, "shard.index=0").returncode == 1
    killed = shards(5)[3].folder(out)
    command = support.tiny_command(TINY_FPN, source, out, *options, "shard.index=3")
    with subprocess.Popen(command, cwd=support.ROOT, stdout=subprocess.DEVNULL) as process:
        while not (killed / "manifest.json").exists() and process.poll() is None:
            time.sleep(0.01)
        process.kill()
    states = ["done with failures", "not started", "not started", "dead", "not started"]
    assert [part.state for part in read_status(out).parts] == states
    for name in ("a.png", "b.png", "c.png"):
        (source / name).unlink()
        shutil.copy(goldens.image_path("horse.png"), source / name)
    (command,) = commands(out)
    assert command.endswith("'shard.index=range(1,5)'")
    paste(command)
    (command,) = commands(out)
    assert command.endswith("shard.index=0")
    paste(command)
    assert read_status(out).is_complete
    assert read_status(out).totals.done == 5
