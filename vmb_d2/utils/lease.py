"""Leases: the sole right to write something, on any file system, as long as the process lives.

A lease is a file that its holder creates with O_EXCL, in which one of several processes succeeds,
on NFS too. It names its holder, and a thread of the holder counts in it every ``BEAT_SECONDS``. A
holder on this machine is dead once its process has ended; one on another machine, once it hasn't
counted for ``EXPIRY_SECONDS`` on the clock of the process that watches it. Whoever wants the lease
removes the file of a dead holder.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import random
import socket
import threading
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ..errors import OutputError
from .files import write_at

# A network file system may show an old state for up to a minute; expiry has to be longer.
BEAT_SECONDS = 10.0
EXPIRY_SECONDS = 90.0
_SIZE = 2048  # bytes of the file; constant, so that counting needs no space on a full disk

logger = logging.getLogger(__name__)


class LeaseHeld(OutputError):
    """Another process holds the lease, and is alive.

    Attributes:
        holder: the content of its file.
    """

    def __init__(self, path: Path, holder: Mapping[str, Any]):
        super().__init__(f"{path}: held by {describe(holder)}")
        self.holder = holder


class Lease:
    """A lease, held from :meth:`acquire` until :meth:`release` or the end of the process.

    As a context manager, it is released at the end of the block.

    Args:
        path: the file, in a folder that exists.

    Attributes:
        note: plain values that the file shows from the next sign of life on.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.note: dict[str, Any] = {}
        self._owner = this_process()
        self._count = 0
        self._file: int | None = None
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def acquire(self, wait: bool = False) -> Lease:
        """Acquire the lease.

        Args:
            wait: until the process that holds it releases it or dies.

        Raises:
            LeaseHeld: another process holds it.
            OSError: the file can't be created.
        """
        is_logged = False
        while not self._create():
            try:
                remove_dead(self.path)
            except LeaseHeld as held:
                if not wait:
                    raise
                if not is_logged:
                    logger.info("waiting: %s", held)
                is_logged = True
                time.sleep(random.uniform(0.5, 1.5))  # several may wait for the same lease
        self._thread = threading.Thread(target=self._give_signs_of_life, daemon=True)
        self._thread.start()
        return self

    def require(self) -> None:
        """Raise OutputError unless the file is still this process's own.

        It may have been taken over, as after a long suspension of this process, or removed.
        """
        try:
            if not self._is_in_place():
                owner = read(self.path)
                who = "nobody, it is gone" if owner is None else describe(owner)
                raise OutputError(f"{self.path}: lost to {who}; this process stops")
        except OSError as error:
            raise OutputError(f"{self.path}: can't be read: {error.strerror}") from error

    def release(self) -> None:
        """Stop the signs of life and remove the file, unless it is another's by now."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        if self._file is not None:
            with contextlib.suppress(OSError):
                if self._is_in_place():
                    self.path.unlink()
            os.close(self._file)
            self._file = None

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()

    def _create(self) -> bool:
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            return False
        try:
            self._write(self._file)
        except BaseException:
            self.release()
            raise
        return True

    def _is_in_place(self) -> bool:
        """Whether the file is still the one that was created. NFS looks when it is opened."""
        if self._file is None:
            return False
        try:
            with open(self.path, "rb") as file:
                return os.path.sameopenfile(file.fileno(), self._file)
        except FileNotFoundError:
            return False

    def _write(self, file: int) -> None:
        self._count += 1
        content = json.dumps({**self._owner, "count": self._count, "note": self.note})
        write_at(file, content.encode("ascii").ljust(_SIZE - 1) + b"\n", 0)
        os.fsync(file)

    def _give_signs_of_life(self) -> None:
        assert self._file is not None
        while not self._ended.wait(BEAT_SECONDS):
            with contextlib.suppress(OSError):  # of a server that is away for a while
                self._write(self._file)


def lease_beside(path: Path) -> Lease:
    """The lease of the process that makes a file which all processes share, as in a cache."""
    return Lease(path.with_name(f".{path.name}.lease"))


def read(path: str | Path) -> dict[str, Any] | None:
    """The content of a lease's file; empty while it is being written, None where there is no file.

    Raises OSError where it can't be read.
    """
    try:
        return json.loads(Path(path).read_bytes())
    except FileNotFoundError:
        return None
    except ValueError:
        return {}


def remove_dead(path: Path) -> None:
    """Remove the file of a dead holder.

    One process at a time does this, by a lease on the removal. So it never removes the file that
    another process has created meanwhile.

    Raises LeaseHeld where the holder is alive; see :func:`require_free`.
    """
    dead = require_free([path]).get(path)
    if dead is None:
        return
    with Lease(f"{path}.takeover").acquire(wait=True):
        if not dead:  # an empty file may be a new one by now
            require_free([path])
        if read(path) == dead:
            path.unlink(missing_ok=True)


def require_free(paths: Collection[Path]) -> dict[Path, dict[str, Any]]:
    """Raise LeaseHeld where a living process holds one of several leases.

    Holders that may live on other machines are watched for ``EXPIRY_SECONDS``, all together. For
    others it takes no time.

    Returns the content of each file that a dead holder has left.
    """
    seen: dict[Path, dict[str, Any] | None] = {}
    end = None
    while True:
        unsure = []
        for path in paths:
            holder = read(path)
            alive = False if holder is None else lives(holder)
            has_changed = path in seen and holder != seen[path]
            if holder and (alive or (alive is None and has_changed)):
                raise LeaseHeld(path, holder)
            if alive is None:
                unsure.append(f"{path}, of {describe(holder or {})}")
            seen[path] = holder
        if end is None:
            end = time.monotonic() + EXPIRY_SECONDS
            if unsure:
                words = "looking for signs of life, %g seconds at most: %s"
                logger.info(words, EXPIRY_SECONDS, "; ".join(unsure))
        if not unsure or time.monotonic() >= end:
            return {path: holder for path, holder in seen.items() if holder is not None}
        time.sleep(min(1.0, BEAT_SECONDS / 4))


def this_process() -> dict[str, Any]:
    """This process as plain values: its host, number, start and cluster job."""
    owner = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "machine": _machine(),
        "process_start": _start_of(os.getpid()),
    }
    if job := job_name(os.environ):
        owner["job"] = job
    return owner


def job_name(environment: Mapping[str, str]) -> str | None:
    """The Slurm job that a process runs in, as ``squeue`` shows it: ``17_3``, or ``17``."""
    variables = ("ARRAY_JOB_ID", "ARRAY_TASK_ID", "JOB_ID", "RESTART_COUNT")
    array, task, job, restarts = (environment.get(f"SLURM_{name}") for name in variables)
    name = f"{array}_{task}" if array and task else job
    return f"{name}, restart {restarts}" if name and restarts else name


def lives(owner: Mapping[str, Any]) -> bool | None:
    """Whether a process, as :func:`this_process` gives it, still runs; None where that can't be
    known, as of another machine."""
    if owner.get("machine") is None or owner.get("machine") != _machine():
        return None
    start = _start_of(owner.get("pid"))
    return start is not None and start == owner.get("process_start")


def describe(owner: Mapping[str, Any]) -> str:
    """A process in words, with its number, host and job."""
    text = f"process {owner.get('pid', '?')} on {owner.get('host', '?')}"
    return f"{text}, job {owner['job']}" if owner.get("job") else text


def _machine() -> str | None:
    """An identifier of this machine's boot, and of the container where that has process numbers of
    its own; None on systems without /proc."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def _start_of(pid: object) -> str | None:
    """When a process of this machine started, in ticks since boot; None where none runs.

    Together with its number this identifies a process, since numbers are used again.
    """
    with contextlib.suppress(OSError):
        # The second field, a name in parentheses, may hold anything; see proc(5).
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        if fields[0] not in "ZX":  # not a zombie, which has ended
            return fields[19]
    return None
