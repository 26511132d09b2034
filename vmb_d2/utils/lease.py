"""Leases: the sole right to write something, on any file system, as long as the process lives.

A lease is a file that its holder creates with O_EXCL, in which one of several processes succeeds,
on NFS too. It names its holder, and a thread of the holder counts in it every ``BEAT_SECONDS``. A
holder on this machine is dead once its process has ended; one on another machine, once it hasn't
counted for ``EXPIRY_SECONDS`` on the clock of the process that watches it. Whoever wants the lease
removes the file of a dead holder.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import os
import random
import socket
import threading
import time
import uuid
from collections.abc import Iterable, Mapping
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


class LeaseLost(OutputError):
    """This process doesn't hold the lease any more.

    Attributes:
        holder: the content of the file that is there now; None where there is none.
    """

    def __init__(self, path: Path, holder: Mapping[str, Any] | None):
        who = "nobody, it is gone" if holder is None else describe(holder)
        super().__init__(f"{path}: lost to {who}; this process stops")
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
        self._owner = {**this_process(), "token": uuid.uuid4().hex}
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
        self._ended.clear()
        self._thread = threading.Thread(target=self._give_signs_of_life, daemon=True)
        self._thread.start()
        return self

    def require(self) -> None:
        """Raise LeaseLost where the file was removed or replaced, as after a long suspension of
        this process, and OutputError where that can't be told."""
        try:
            if self._is_in_place():
                return
            found = read(self.path)
        except OSError as error:
            raise OutputError(f"{self.path}: can't be read: {error.strerror}") from error
        raise LeaseLost(self.path, found)

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
        content = json.loads(Path(path).read_bytes())
    except FileNotFoundError:
        return None
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


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


def require_free(paths: Iterable[str | Path]) -> dict[Path, dict[str, Any]]:
    """Raise LeaseHeld where a living process holds one of several leases.

    Holders that may live on other machines are watched for ``EXPIRY_SECONDS``, all together. For
    others it takes no time.

    Returns the content of each file that a dead holder has left.
    """
    seen = {Path(path): read(path) for path in paths}
    unsure = [path for path, holder in seen.items() if _may_live(path, holder)]
    if unsure:
        words = "; ".join(f"{path}, of {describe(seen[path] or {})}" for path in unsure)
        logger.info("looking for signs of life, %g seconds at most: %s", EXPIRY_SECONDS, words)
    end = time.monotonic() + EXPIRY_SECONDS
    while unsure and time.monotonic() < end:
        time.sleep(min(1.0, BEAT_SECONDS / 4))
        for path in list(unsure):
            before, now = seen[path], read(path)
            seen[path] = now
            if not _may_live(path, now):
                unsure.remove(path)
            elif now and now != before:
                raise LeaseHeld(path, now)
    return {path: holder for path, holder in seen.items() if holder is not None}


def _may_live(path: Path, holder: Mapping[str, Any] | None) -> bool:
    """Whether it isn't known if the holder lives. Raises LeaseHeld where it lives."""
    alive = False if holder is None else lives(holder)
    if holder is not None and alive:
        raise LeaseHeld(path, holder)
    return alive is None


def this_process() -> dict[str, Any]:
    """This process as plain values: its host, number, start and cluster job."""
    owner = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "machine": _machine(),
        "process_start": _start_of(os.getpid()),
        "since": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
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
    """An identifier of this machine, its boot, and the container where that has process numbers of
    its own; None on systems without /proc. The host name tells clones of a running virtual machine
    apart, which have the same boot."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{socket.gethostname()} {boot} {os.readlink('/proc/self/ns/pid')}"
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
