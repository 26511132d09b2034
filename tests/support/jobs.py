"""Extraction jobs into a folder, and what they leave there."""

import contextlib
import json
import os
from pathlib import Path

from fakes import FakeExtractor

from vmb_d2.data.batching import Batching
from vmb_d2.engine.job import ExtractionJob
from vmb_d2.output.open_stores import open_reader

# One of each kind: a file an image, a database, an appended file. Each further one takes time.
SOME_FORMATS = ("mmf", "npz", "lmdb", "hdf5")


def run(folder, images, extractor=None, shard=None, load=None, own=None, **values):
    """Run a job, or a shard's part of it: its share, unless ``own`` says which images are its."""
    extractor = extractor or FakeExtractor()
    values = {"formats": SOME_FORMATS, "options": extractor.options, **values}
    batching = Batching(values.pop("batching", "bucketed"), values.pop("batch_size", 1))
    own = own or images
    if shard and own is images:
        own = shard.share(images, images, batching.chunk)
        values = {"record": {"shard": shard.describe(images)}, **values}
    job = ExtractionJob(folder, shard=shard, batching=batching, **values)
    return job.run(own, load or (lambda: extractor), of_all_shards=images)


def no_load():
    """In place of what loads the model, where nothing is to do."""
    raise AssertionError("loaded")


def manifest(folder, shard=None):
    path = shard.folder(folder) if shard else folder
    return json.loads((path / "manifest.json").read_text())


def failures(folder):
    path = folder / "failures.jsonl"
    return [json.loads(x) for x in path.read_text().splitlines()] if path.exists() else []


def everything(folder, formats=SOME_FORMATS):
    """What is in the stores of a folder: {(format, name): features}."""
    return {(f, n): value for f in formats for n, value in stored(folder, f).items()}


def stored(folder, name):
    """What is in the store of one format: {name: features}."""
    with open_reader(folder, name) as reader:
        names = list(reader.names())
        assert len(names) == len(set(names)) == len(reader)
        return {n: reader.read(n).features.tobytes() for n in names}


def children():
    """The processes that this one started."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            if int(parent) == os.getpid() and state != "Z":
                found.append(int(stat.parent.name))
    return found


def is_there(pid):
    """Whether a process runs; one that has ended and whose end wasn't noticed yet doesn't."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
