"""Processes that read images, and the memory in which their pixels arrive."""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
import signal
import socket
import subprocess
import sys
from collections import Counter, deque
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from ..errors import ConfigError, ImageReadError
from .preprocessing import LONG_SIDE, SHORT_SIDE, NetworkImage, as_network_image, load

MOST_DEATHS = 2  # of processes over one image, before it counts as what kills them
_SLOT = 3 * SHORT_SIDE * LONG_SIDE * np.dtype(np.float32).itemsize  # the most that an image takes
_PROGRAM = Path(__file__).with_name("reader_process.py")
_BLOCKED = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2}

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    """Within the block, processes are started with signals blocked, for all of their time."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _BLOCKED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Process:
    """A process that reads images.

    Attributes:
        tasks: (number, path, offset) of each image asked for, in order, as long as it isn't there.
        ready: whether it got so far as to read images.
    """

    def __init__(self, memory: int, size: int):
        ours, theirs = socket.socketpair()
        with theirs, _signals_blocked():
            numbers = (theirs.fileno(), memory)
            self._popen = subprocess.Popen(
                [sys.executable, str(_PROGRAM), *map(str, numbers), str(size)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=numbers,
                env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            )
        self.pid = self._popen.pid
        self.connection = Connection(ours.detach())
        self.tasks: deque[tuple[int, str, int]] = deque()
        self.ready = False
        self._send(sys.path)

    def add(self, number: int, path: str, offset: int) -> None:
        """Ask for an image."""
        self.tasks.append((number, path, offset))
        self._send((path, offset))

    def _send(self, message) -> None:
        with contextlib.suppress(OSError):  # it is dead, which receiving tells
            self.connection.send(message)

    def end(self) -> str:
        """Let go of it. Returns how it ended."""
        self._popen.kill()  # without effect on one that has ended
        self.connection.close()
        status = self._popen.wait()
        return signal.Signals(-status).name if status < 0 else f"exit status {status}"


class ReaderPool:
    """Reads images in processes, in the order in which they are submitted.

    Their pixels arrive in memory that the processes share. There is as much of it as ``slots``
    images take; that of an image which was taken is used again after :meth:`release`. One process
    that dies, as where the memory doesn't do, is replaced; an image over which two die fails.

    Not for several threads. To be closed.

    Args:
        processes: how many.
        slots: how many images there can be, submitted and not yet released.

    Raises ConfigError where the processes can't be started, here or later.
    """

    def __init__(self, processes: int, slots: int):
        self.count = processes
        self.slots = slots
        self._size = slots * _SLOT
        self._submitted = self._taken = self._released = 0
        self._answers: dict[int, tuple[str, tuple[list[str], object]]] = {}
        self._deaths: Counter[int] = Counter()
        self._processes: list[_Process] = []
        self._file = None
        try:
            self._file = os.memfd_create("vmb_d2")  # /dev/shm is small in containers
            os.ftruncate(self._file, self._size)
            self._memory = mmap.mmap(self._file, self._size)
            for _ in range(processes):
                self._processes.append(self._start())
        except OSError as error:
            self.close()
            raise self._unusable(error.strerror) from error
        except BaseException:
            self.close()
            raise

    @property
    def room(self) -> int:
        """How many images can be submitted now."""
        return self.slots - (self._submitted - self._released)

    @property
    def pids(self) -> list[int]:
        """The processes' numbers."""
        return [process.pid for process in self._processes]

    def submit(self, path: str) -> None:
        """Let an image be read. There has to be room."""
        if self.room < 1:
            raise ValueError("no room: release what was taken")
        for i, process in enumerate(self._processes):
            while process.connection.poll():
                process = self._receive(i)
        number = self._submitted
        self._submitted += 1
        free = min(self._processes, key=lambda process: len(process.tasks))
        free.add(number, path, number % self.slots * _SLOT)

    def take(self) -> NetworkImage:
        """The next image, as soon as it is there; its memory is the pool's.

        Raises ImageReadError, and what :func:`vmb_d2.data.preprocessing.load` raises.
        """
        number = self._taken
        if number == self._submitted:
            raise ValueError("none was submitted")
        while number not in self._answers:
            self._receive(self._reader_of(number))
        path, (warned, answer) = self._answers.pop(number)
        self._taken += 1
        for text in warned:
            logger.warning("%s", text)
        if isinstance(answer, str):
            raise ImageReadError(answer)
        if answer is None:
            return load(path)
        height, width, scale, *more = answer
        offset = number % self.slots * _SLOT
        pixels = np.frombuffer(self._memory, np.float32, 3 * height * width, offset)
        return as_network_image(pixels.reshape(3, height, width), scale, *more)

    def release(self) -> None:
        """Let the memory of all images that were taken be used again."""
        self._released = self._taken

    def close(self) -> None:
        """End the processes, at once."""
        while self._processes:
            self._processes[-1].end()
            self._processes.pop()
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def __enter__(self) -> ReaderPool:
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def _start(self) -> _Process:
        return _Process(self._file, self._size)

    def _reader_of(self, number: int) -> int:
        for i, process in enumerate(self._processes):
            if any(number == task[0] for task in process.tasks):
                return i
        raise AssertionError(f"nobody reads image {number}")

    def _receive(self, i: int) -> _Process:
        """Wait for a word of the process at ``i``. Returns that, or the one in its place."""
        process = self._processes[i]
        try:
            answer = process.connection.recv()
        except (EOFError, OSError):
            return self._replace(i)
        if process.ready:
            number, path, _ = process.tasks.popleft()
            self._answers[number] = path, answer
        elif answer is None:
            process.ready = True
        else:
            raise self._unusable(answer)
        return process

    def _replace(self, i: int) -> _Process:
        """Start another process instead of the one at ``i``, which is dead."""
        dead = self._processes[i]
        end = dead.end()
        if not dead.ready:
            raise self._unusable(f"ended by {end}")
        tasks = dead.tasks
        logger.warning("a process that reads images was ended by %s; another takes over", end)
        if tasks:
            number, path, _ = tasks[0]
            self._deaths[number] += 1
            if self._deaths[number] >= MOST_DEATHS:
                tasks.popleft()
                reason = f"{path}: {MOST_DEATHS} processes that read it were ended by {end}"
                self._answers[number] = path, ([], reason)
        self._processes[i] = self._start()
        for task in tasks:
            self._processes[i].add(*task)
        return self._processes[i]

    def _unusable(self, reason: str | None) -> ConfigError:
        return ConfigError(
            f"extract.workers={self.count}: processes that read images can't be started: {reason}; "
            "extract.workers=0 does without"
        )
