"""Records of runs and shards in every state, made by real jobs, for tests of their status."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import support
from fakes import FakeExtractor

from vmb_d2.data.image_list import select_images
from vmb_d2.engine.job import ExtractionJob
from vmb_d2.errors import CheckpointError
from vmb_d2.output.shards import Shard
from vmb_d2.status import lines, next_step, read_status, report
from vmb_d2.utils.interruption import Interrupted, handled
from vmb_d2.utils.lease import this_process

LONG_AGO = 1_700_000_000


def record_of(output, images, shard=None, overrides=(), hydra=(), **inputs):
    """What tools/extract.py puts on record."""
    named = [f"shard.count={shard.count}", f"shard.index={shard.index}"] if shard else []
    options = {"list": None, "exclude_list": None, "start_index": 0, "end_index": None, **inputs}
    record = {
        "configuration": {"input": options, "output": {"dir": str(output)}},
        "command": {
            "overrides": [f"output.dir={output}", *overrides, *named],
            "hydra": list(hydra),
            "folder": str(support.ROOT),
        },
    }
    return {**record, "shard": shard.describe(images)} if shard else record


def run(output, images, shard=None, extractor=None, record=None, **values):
    """Run a job over all images, or over a shard's share."""
    extractor = extractor or FakeExtractor()
    record = record_of(output, images, shard) if record is None else record
    own = shard.share(images, select_images(images)) if shard else images
    job = ExtractionJob(output, options=extractor.options, shard=shard, record=record, **values)
    return job(own, lambda: extractor)


def interrupt(output, images, shard=None, after=1, **values):
    """The same, with a signal after some images."""
    extractor = FakeExtractor(
        before_batch=lambda batch: len(extractor.batches) == after and os.kill(os.getpid(), 15)
    )
    with pytest.raises(Interrupted), handled():
        run(output, images, shard, extractor, **values)


def fail(output, images, shard=None):
    """The same, with a model that can't be loaded."""

    def load():
        raise CheckpointError("/no/such.pth: No such file or directory")

    own = shard.share(images, images) if shard else images
    record = record_of(output, images, shard)
    with pytest.raises(CheckpointError):
        ExtractionJob(output, shard=shard, record=record)(own, load)


def spoil(image):
    """Make it one that can't be read."""
    Path(image.path).write_text("no image")


def manifest(folder):
    return json.loads((folder / "manifest.json").read_text())


def rewrite(path, **changes):
    """Change values in a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def as_of_another_machine(folder, seconds_ago):
    """Make a lease one of another machine, with its last sign of life then."""
    path = folder / "running.json"
    rewrite(path, machine="another", host="node7", job="17_6, restart 1")
    moment = time.time() - seconds_ago
    os.utime(path, (moment, moment))
    return moment


class Workers:
    """Real processes, each at one shard (-1: at the whole run), that stay there after an image."""

    def __init__(self, source, output, count, *indices):
        command = [
            sys.executable,
            "tests/support/programs/halting_jobs.py",
            source,
            output,
            count,
            *indices,
        ]
        self._process = subprocess.Popen(
            list(map(str, command)),
            cwd=support.ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pids = {index: int(self._process.stdout.readline()) for index in indices}

    def kill(self, index):
        os.kill(self.pids[index], 9)
        assert self._process.stdout.readline() == f"{self.pids[index]} ended\n"

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._process.communicate()


def shards(count, source=""):
    return [Shard(source, count, index) for index in range(count)]


def the(output, **values):
    """The only part there is, of a run without shards."""
    (part,) = read_status(output, **values).parts
    return part


def rewrite_run(folder, **changes):
    """Change what a manifest says of its last run."""
    runs = manifest(folder)["runs"]
    runs[-1].update(changes)
    rewrite(folder / "manifest.json", runs=runs)


def leave_lease(folder, **changes):
    """Put a lease of this process there."""
    content = {**this_process(), "token": "1", "count": 1, "note": {}, **changes}
    (folder / "running.json").write_text(json.dumps(content))


def report_of(output, now=None):
    """What tools/status.py has to say of a folder, from the project's."""
    now = time.time() if now is None else now
    status = read_status(output, now)
    return report(status, next_step(status, support.ROOT, support.ROOT / "tools"), now)


def text_of(output, now=None, **options):
    """The lines it prints."""
    return list(lines(report_of(output, now), **options))
