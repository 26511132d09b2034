"""One process at a time, also on file systems whose locks can't be trusted.

A lease is a file that its holder creates, for which NFS too has only one winner, and in which a
thread of the holder counts on, as a sign of life. A holder that doesn't do so any more has lost it.
No clocks are compared: who wants the lease watches the file for a while by its own.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import random
import threading
import time
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..errors import OutputError
from .files import write_at
from .owner import describe, lives, this_process

# A network file system may show an old state for up to a minute; expiry has to be longer.
BEAT_SECONDS = 10.0
EXPIRY_SECONDS = 90.0
_SIZE = 2048  # bytes, always, so that writing anew never needs space

_own: set[str] = set()  # tokens of the leases that this process has

logger = logging.getLogger(__name__)


class LeaseHeld(OutputError):
    """Another process has the lease, and is alive.

    Attributes:
        holder: what its file says.
    """

    def __init__(self, path: Path, holder: Mapping[str, Any]):
        super().__init__(f"{path}: held by {describe(holder)}")
        self.holder = holder


class LeaseLost(OutputError):
    """The lease isn't this process' any more.

    Attributes:
        holder: what the file of who has it now says; None where it is gone.
    """

    def __init__(self, path: Path, holder: Mapping[str, Any] | None):
        who = "nobody, it is gone" if holder is None else describe(holder)
        super().__init__(f"{path}: lost to {who}; this process stops")
        self.holder = holder


class Lease:
    """The sole right to something, as long as the process lives and until :meth:`release`.

    Args:
        path: the file. Its folder exists.
        beat: seconds between signs of life.
        expiry: seconds without one after which others take the lease.

    Attributes:
        note: plain values for readers of the file, as of the last sign of life.
    """

    def __init__(
        self, path: str | Path, beat: float = BEAT_SECONDS, expiry: float = EXPIRY_SECONDS
    ):
        self.path = Path(path)
        self.note: dict[str, Any] = {}
        self._beat = beat
        self._expiry = expiry
        self._owner = {**this_process(), "token": uuid.uuid4().hex}
        self._count = 0
        self._file: int | None = None
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def acquire(self, wait: bool = False) -> Lease:
        """Get the lease.

        Args:
            wait: where another process has it, wait until that one lets go of it or dies.

        Raises:
            LeaseHeld: a living process has it, which takes up to ``beat`` to see.
            OSError: the file can't be made.
        """
        waiting = False
        while not self._create():
            try:
                remove_dead(self.path, self._beat, self._expiry)
            except LeaseHeld as held:
                if not wait:
                    raise
                if not waiting:
                    logger.info("waiting: %s", held)
                waiting = True
                time.sleep(random.uniform(0.5, 1.5))  # many may wait for the same
        self._ended.clear()
        self._thread = threading.Thread(target=self._go_on_living, name="lease", daemon=True)
        self._thread.start()
        return self

    def require(self) -> None:
        """Raise LeaseLost where others took the lease, which this process slept through, or the
        file is gone; OutputError where it can't be read."""
        try:
            if self._is_in_place():
                return
            found = read(self.path)
        except OSError as error:
            raise OutputError(f"{self.path}: can't be read: {error.strerror}") from error
        raise LeaseLost(self.path, found)

    def release(self) -> None:
        """Let go of it."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        if self._file is not None:
            with contextlib.suppress(OSError):
                if self._is_in_place():
                    self.path.unlink()
            os.close(self._file)
            self._file = None
        _own.discard(self._owner["token"])

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *exception) -> None:
        self.release()

    def _create(self) -> bool:
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            return False
        _own.add(self._owner["token"])
        try:
            self._write()
        except BaseException:
            self.release()
            raise
        return True

    def _is_in_place(self) -> bool:
        """Whether the file is still the one that was made. Opening it is what makes NFS look."""
        try:
            with open(self.path, "rb") as file:
                return os.path.sameopenfile(file.fileno(), self._file)
        except FileNotFoundError:
            return False

    def _write(self) -> None:
        self._count += 1
        content = json.dumps({**self._owner, "count": self._count, "note": self.note})
        write_at(self._file, content.encode("ascii").ljust(_SIZE - 1) + b"\n", 0)
        os.fsync(self._file)

    def _go_on_living(self) -> None:
        while not self._ended.wait(self._beat):
            with contextlib.suppress(OSError):  # a server that is away for a while
                self._write()


def lease_beside(path: Path) -> Lease:
    """The lease of those who make a file that all share, such as one in a cache."""
    return Lease(path.with_name(f".{path.name}.lease"))


def read(path: str | Path) -> dict[str, Any] | None:
    """What a lease's file says; {} where it is just being written; None where there is none.

    Raises OSError where it can't be read.
    """
    try:
        content = json.loads(Path(path).read_bytes())
    except FileNotFoundError:
        return None
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def remove_dead(path: Path, beat: float = BEAT_SECONDS, expiry: float = EXPIRY_SECONDS) -> None:
    """Take a dead holder's file away, and that of no other that came meanwhile.

    One process at a time does so: what it read is then still there when it removes it.

    Raises LeaseHeld where a living process has the lease; see :func:`require_free`.
    """
    pause = min(1.0, beat / 4)
    dead = require_free([path], expiry, pause).get(path)
    if dead is None:
        return
    with Lease(f"{path}.takeover", beat, expiry).acquire(wait=True):
        if not dead:  # nor would one say anything that was made just now
            require_free([path], expiry, pause)
        if read(path) == dead:
            path.unlink(missing_ok=True)


def require_free(
    paths: Iterable[str | Path], expiry: float = EXPIRY_SECONDS, pause: float = 1.0
) -> dict[Path, dict[str, Any]]:
    """Raise LeaseHeld where a living process has one of these leases.

    It takes as long as it takes to know: no time where they are free or their holders are, or
    were, on this machine; up to ``expiry`` seconds where they may have died on another.

    Returns the files that dead holders left behind, and what they say.
    """
    seen = {Path(path): read(path) for path in paths}
    unsure = {path for path, holder in seen.items() if _may_live(path, holder)}
    if unsure:
        words = "; ".join(f"{path}, of {describe(seen[path])}" for path in sorted(unsure))
        logger.info("looking for signs of life, %g seconds at most: %s", expiry, words)
    end = time.monotonic() + expiry
    while unsure and time.monotonic() < end:
        time.sleep(pause)
        for path in list(unsure):
            before, seen[path] = seen[path], read(path)
            if not _may_live(path, seen[path]):
                unsure.remove(path)
            elif seen[path] and seen[path] != before:
                raise LeaseHeld(path, seen[path])
    return {path: holder for path, holder in seen.items() if holder is not None}


def _may_live(path: Path, holder: Mapping[str, Any] | None) -> bool:
    """Whether there is a holder that isn't surely dead. Raises LeaseHeld where it surely isn't."""
    if holder is None:
        return False
    alive = lives(holder)
    if alive and holder["pid"] == os.getpid() and holder["token"] not in _own:
        alive = False  # a file that this very process couldn't remove
    if alive:
        raise LeaseHeld(path, holder)
    return alive is None
