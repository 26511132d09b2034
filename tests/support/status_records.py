"""Records of runs and shards in every state, made by real jobs."""

import contextlib
import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import jobs
import pytest
from fakes import FakeExtractor
from sharded import shards

from vmb_d2.errors import CheckpointError
from vmb_d2.status import read_status
from vmb_d2.utils.interruption import Interrupted, handled
from vmb_d2.utils.lease import this_process

LONG_AGO = 1_700_000_000
# A shard in each state, 3 images each: see every_state.
STATES = {
    0: "done",
    1: "done with failures",
    2: "dead",  # by SIGKILL
    3: "running",
    4: "stopped",
    5: "failed",
    6: "dead",  # on another machine
    7: "not started",
    8: "damaged",
}
NOTE = {"images": 3, "done": 1, "failed": 0, "extracted": 1, "seconds": 7200}


def run(output, images, shard=None, extractor=None, **values):
    """Run a job over all images, or over a shard's share, by default in MMF's format."""
    return jobs.run(output, images, extractor, shard, **{"formats": ["mmf"], **values})


def interrupt(output, images, shard=None, **values):
    """The same, with SIGTERM in the second batch."""
    extractor = FakeExtractor(
        before_batch=lambda batch: len(extractor.batches) == 1 and os.kill(os.getpid(), 15)
    )
    with pytest.raises(Interrupted), handled():
        run(output, images, shard, extractor, **values)


def fail(output, images, shard=None):
    """The same, with a model that can't be loaded."""

    def load():
        raise CheckpointError("/no/such.pth: No such file or directory")

    with pytest.raises(CheckpointError):
        run(output, images, shard, load=load)


def _halt(output, images, shard, arrived):
    def halt(batch):
        if extractor.batches:
            extractor.wait_until_written()
            arrived.set()
            signal.pause()

    extractor = FakeExtractor(before_batch=halt)
    run(output, images, shard, extractor)


@contextlib.contextmanager
def halted(output, images, shard=None):
    """The same in a process that halts before its second batch. Gives the process's number; it is
    killed in the end."""
    context = multiprocessing.get_context("spawn")  # PyTorch's threads don't survive a fork
    arrived = context.Event()
    child = context.Process(target=_halt, args=(output, images, shard, arrived))
    child.start()
    try:
        while not arrived.wait(0.1):
            assert child.is_alive()
        yield child.pid
    finally:
        child.kill()
        child.join()


def every_state(output, images):
    """Fill ``output`` with a shard in each of STATES."""
    all_shards = shards(len(STATES))
    done, failures, dead, running, stopped, failed, elsewhere, _, damaged = all_shards
    run(output, images, done)
    spoil(images[4])
    run(output, images, failures)
    with halted(output, images, dead):
        pass
    for shard in (running, elsewhere):
        interrupt(output, images, shard)
        rewrite_run(shard.folder(output), state="running")
        leave_lease(shard.folder(output), note=NOTE)
    as_of_another_machine(elsewhere.folder(output), 7500)
    variables = {"ARRAY_JOB_ID": "17", "ARRAY_TASK_ID": "4", "RESTART_COUNT": "2"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(f"SLURM_{name}", value)
        interrupt(output, images, stopped)
        fail(output, images, failed)
    (output / "logs" / "17_4").mkdir(parents=True)
    run(output, images, damaged)
    (damaged.folder(output) / "manifest.json").write_text("{")


def spoil(image):
    """Make it one that can't be read."""
    Path(image.path).write_text("no image")


def stored(output, images):
    """How many of the images are in MMF's files."""
    return sum((output / f"{image.name}.npy").exists() for image in images)


def rewrite(path, **changes):
    """Change values in a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def rewrite_run(folder, **changes):
    """Change what a manifest says of its last run."""
    runs = json.loads((folder / "manifest.json").read_text())["runs"]
    runs[-1].update(changes)
    rewrite(folder / "manifest.json", runs=runs)


def leave_lease(folder, **changes):
    """Put a lease of this process there."""
    content = {**this_process(), "token": "1", "count": 1, "note": {}, **changes}
    (folder / "running.json").write_text(json.dumps(content))


def as_of_another_machine(folder, seconds_ago):
    """Make a lease one of another machine, with its last sign of life then."""
    path = folder / "running.json"
    rewrite(path, machine="another", host="node7", job="17_6, restart 1")
    moment = time.time() - seconds_ago
    os.utime(path, (moment, moment))


def the(output, **values):
    """The only part there is, of a run without shards."""
    (part,) = read_status(output, **values).parts
    return part
