"""Sweeps of tools/extract.py: started, watched while they run, and compared with a single run."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import support
from PIL import Image

from vmb_d2.output.open_stores import open_reader
from vmb_d2.output.shards import Shard
from vmb_d2.stores import FORMATS

SHARES = ["output.format=[mmf,lmdb,hdf5]", "extract.num_features=10", "device=cpu"]
OUTER = ("SLURM", "SBATCH", "SUBMITIT")  # of a cluster that the tests may run in


def environment(**changes):
    """This process' variables, for an app that shares the cores with others."""
    rest = {k: v for k, v in os.environ.items() if not k.startswith(OUTER)}
    # Features depend on the number of threads, in the last bits.
    return {**rest, "OMP_NUM_THREADS": "1", **changes}


def large(folder, count):
    """Images of half a second each: long enough to be disturbed in between."""
    return _noise(folder, count, (200, 200))


def small(folder, count):
    """Images of a fifth of a second each."""
    return _noise(folder, count, (40, 400))


def _noise(folder, count, size):
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(count):
        pixels = rng.integers(0, 255, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"image{i:02}.png")
    return folder


def until(condition, what, limit=60):
    """Wait for a condition that has to come about, and return its value."""
    end = time.monotonic() + limit
    while not (value := condition()):
        assert time.monotonic() < end, f"waited {limit} s in vain: {what}"
        time.sleep(0.05)
    return value


def command(*overrides):
    """The app with a tiny model; options that begin with ``-`` stand before the others."""
    flags = [option for option in overrides if option.startswith("-")]
    options = [option for option in overrides if option not in flags]
    tiny = support.tiny_command(support.TINY_FPN, None, "output", *options)
    return [*tiny[:2], *flags, *tiny[2:]]


def hang(pid):
    """Let a process do nothing more, until somebody's patience with it ends. Returns at once."""

    def stop():
        with contextlib.suppress(ProcessLookupError):
            for _ in range(1000):  # who kills it may first let it go on
                os.kill(pid, signal.SIGSTOP)
                time.sleep(0.05)

    threading.Thread(target=stop).start()


class Started:
    """The app, running in a session of its own. A context manager: at the end it doesn't any more.

    Attributes:
        status, stdout, stderr: after :meth:`finish`.
    """

    def __init__(self, *overrides, **changes):
        self.stdout = self.stderr = self.status = None
        self._stack = contextlib.ExitStack()
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        self._said = folder / "stdout", folder / "stderr"
        out, err = (self._stack.enter_context(path.open("w")) for path in self._said)
        self.process = subprocess.Popen(
            command(*map(str, overrides)),
            cwd=support.ROOT,
            env=environment(**changes),
            stdout=out,
            stderr=err,
            start_new_session=True,
        )

    def said(self):
        """What it has written to stdout and stderr so far."""
        return [path.read_text() for path in self._said]

    def finish(self, limit=90):
        """Wait for its end."""
        self.status = self.process.wait(limit)
        self.stdout, self.stderr = self.said()
        return self

    def signal(self, signum):
        """Send a signal to all of its processes, as a terminal does."""
        os.killpg(self.process.pid, signum)

    def group(self):
        """Its processes that live, by their ids, and those that they started."""
        found = []
        for place in Path("/proc").glob("[0-9]*"):
            try:
                fields = (place / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == self.process.pid and fields[0] not in "ZX":  # of its session
                found.append(int(place.name))
        return found

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        for pid in self.group():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(30)
        self._stack.close()


def run(*overrides, limit=90, **changes):
    """Run the app to its end."""
    with Started(*overrides, **changes) as started:
        return started.finish(limit)


def alone(source):
    """The outputs of a single run, beside the images, which nothing disturbs."""
    out = source.parent / "alone"
    done = run(f"input.dir={source}", f"output.dir={out}", *SHARES)
    assert done.status == 0, done.stderr
    return out


def forked(lists, **changes):
    """(exit status, stderr) of the app with each of several lists of options.

    For those that end before any work: they are forks of one process.
    """
    done = subprocess.run(
        [sys.executable, "tests/support/programs/forked_extract.py"],
        input=json.dumps(lists, default=str),
        cwd=support.ROOT,
        env=environment(**changes),
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    return json.loads(done.stdout)


def manifest(folder):
    """A manifest's content; {} where there is none yet."""
    try:
        return json.loads((folder / "manifest.json").read_text())
    except FileNotFoundError:
        return {}


def runs(out, index, count):
    """The entries of a shard's runs in its manifest."""
    return manifest(Shard("", count, index).folder(out)).get("runs", [])


def states(out, count):
    """How each shard's last run ended."""
    return [entries[-1]["state"] for i in range(count) if (entries := runs(out, i, count))]


def share(source, index, count):
    """The names of a shard's images."""
    names = sorted(path.stem for path in source.iterdir())
    begin, end = Shard("", count, index).bounds(len(names))
    return names[begin:end]


def stored(out, names):
    """Of the images with these names, the files that are complete, and what tells them apart."""
    found = {}
    for name in names:
        files = [out / f"{name}.npy", out / f"{name}_info.npy"]
        if all(file.exists() for file in files):
            found[name] = [(s.st_ino, s.st_mtime_ns) for s in (file.stat() for file in files)]
    return found


def midway(out, source, index, count):
    """The manifest's entry of a shard that has stored two of its images, not all; else None.

    The disturbance that is waited for has to come at once.
    """
    entries = runs(out, index, count)
    if not entries or entries[-1]["state"] != "running" or "device" not in entries[-1]:
        return None
    names = share(source, index, count)
    done = len(stored(out, names))
    assert done < len(names), "too fast to be disturbed"
    return entries[-1] if done >= 2 else None


def assert_same_outputs(out, alone, source, count):
    """Shards' outputs are bit for bit a single run's, with nothing double and nothing left over."""
    names = sorted(path.stem for path in source.iterdir())
    files = {file.name: file.read_bytes() for file in alone.glob("*.npy")}
    assert len(files) == 2 * len(names)
    assert {file.name: file.read_bytes() for file in out.glob("*.npy")} == files
    for format_name in ("lmdb", "hdf5"):
        with open_reader(alone, format_name) as expected:
            for index in range(count):
                folder = Shard("", count, index).folder(out)
                with open_reader(folder / FORMATS[format_name].place, format_name) as found:
                    assert sorted(found.names()) == share(source, index, count)
                    for name in found.names():
                        support.assert_same_regions(found.read(name), expected.read(name))
    leftovers = [p for p in out.rglob("*") if p.suffix in (".tmp", ".journal")]
    assert leftovers == []
    assert list(out.rglob("running.json*")) == []
