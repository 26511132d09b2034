"""Processes that read images, as PyTorch's DataLoader starts them.

They are forked, so they start at once and see the memory that the images' pixels are written to:
pages of the process itself, as /dev/shm, where the DataLoader puts tensors, is small in containers.
They use neither the GPU nor threads, and hold no lock of the files that the run has open, since
they end with the run, however that ends. Signals are for the run alone, and don't reach them.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import itertools
import math
import mmap
import multiprocessing
import os
import re
import signal
import threading
from collections.abc import Generator, Iterable, Iterator
from dataclasses import fields
from multiprocessing.process import BaseProcess
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from ..config.input_step import InputStep
from ..errors import ConfigError, ImageReadError
from .loading import Outcome, outcome_of
from .preprocessing import NetworkImage

_PR_SET_PDEATHSIG = 1  # prctl's option: the signal that a process gets when its parent ends
_SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2}

# What a process answers: the shape of the image's tensor and the other fields of a NetworkImage, or
# why it can't be read.
_Answer = tuple[Any, ...] | ImageReadError


class _ImageFiles(Dataset[_Answer]):
    """Image files, by (path, place).

    Attributes:
        paths: (places,), what was last asked for.
        pixels: float32 (places, the most values of an image), where tensors are put.
        reading: int64 (workers, 2), the process' id and the place of what each read last.
    """

    def __init__(self, places: int, workers: int, step: InputStep):
        self.paths = [""] * places
        self.step = step
        self.pixels = _shared(torch.float32, places, 3 * step.most_pixels)
        self.reading = _shared(torch.int64, workers, 2)

    def __getitem__(self, index: tuple[str, int]) -> _Answer:
        path, place = index
        worker = get_worker_info()
        assert worker is not None
        self.reading[worker.id] = torch.tensor([os.getpid(), place])
        image = outcome_of(path, self.step)
        if isinstance(image, ImageReadError):
            return image
        shape = image.tensor.shape
        self.pixels[place, : math.prod(shape)].view(shape).copy_(image.tensor)
        return shape, *(getattr(image, field.name) for field in fields(image)[1:])


def _shared(dtype: torch.dtype, *shape: int) -> torch.Tensor:
    """A tensor in memory that this process and those forked from it share."""
    memory = mmap.mmap(-1, math.prod(shape) * dtype.itemsize)
    return torch.frombuffer(memory, dtype=dtype).view(shape)


def read_in_processes(
    paths: Iterable[str], workers: int, step: InputStep, *, ahead: int, kept: int
) -> Generator[Outcome]:
    """Read images in processes.

    Args:
        paths: of the image files; asked for as they are read.
        workers: how many processes.
        step: how images become the network's input.
        ahead: how many images each reads ahead.
        kept: how many images of the last ones can be used until the next is asked for.

    Yields:
        Each image in order, or why it can't be read. Its tensor is overwritten after ``kept`` more.

    Raises:
        ConfigError: the processes can't be started, or one was killed.
    """
    places = workers * ahead + kept + 1
    files = _ImageFiles(places, workers, step)
    errors = []

    def indices() -> Iterator[tuple[str, int]]:
        try:
            for path, place in zip(paths, itertools.cycle(range(places)), strict=False):
                files.paths[place] = path
                yield path, place
        except Exception as error:  # see _answers
            errors.append(error)

    with contextlib.closing(_answers(files, indices(), workers, ahead)) as answers:
        for place, answer in zip(itertools.cycle(range(places)), answers, strict=False):
            if isinstance(answer, ImageReadError):
                yield answer
            else:
                shape, *more = answer
                yield NetworkImage(files.pixels[place, : math.prod(shape)].view(shape), *more)
    if errors:
        raise errors[0]


def _answers(
    files: _ImageFiles, indices: Iterable[tuple[str, int]], workers: int, ahead: int
) -> Generator[_Answer]:
    """Start the processes, and yield what they answer, in order.

    ``indices`` must not raise: an error that came through the DataLoader's iterator would refer to
    it, and the garbage collection of both ends the iterator's queues in the wrong order.
    """
    loader = DataLoader(
        files,
        batch_size=None,
        sampler=indices,
        num_workers=workers,
        collate_fn=lambda answer: answer,
        worker_init_fn=lambda worker: ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL),
        prefetch_factor=ahead,
        multiprocessing_context="fork",
    )
    end = functools.partial(_end, but=set(multiprocessing.active_children()))
    atexit.register(end)  # before multiprocessing waits for all processes, where this isn't closed
    iterator = None
    try:
        try:
            with _ready_to_fork():
                iterator = iter(loader)
            yield from iterator
            return
        except OSError as error:
            reason = f"processes that read images can't be started: {error.strerror}"
        except RuntimeError as error:
            dead = re.match(r"DataLoader worker \(pid\(s\) ([\d, ]+)\) exited", str(error))
            if dead is None:
                raise
            pids = set(map(int, dead[1].split(",")))
            last = [files.paths[place] for pid, place in files.reading.tolist() if pid in pids]
            reason = (
                "a process that reads images died, as the system kills it where memory runs out; "
                f"its last image: {', '.join(last) or 'none'}. The same command goes on, 0 does "
                "without"
            )
        raise ConfigError(reason, field="workers", value=workers)
    finally:
        iterator = None  # this ends the processes, unless they are stuck
        end()
        atexit.unregister(end)


def _end(but: set[BaseProcess]) -> None:
    """Kill the processes that this one has started, but these."""
    for process in set(multiprocessing.active_children()) - but:
        process.kill()
        process.join()


@contextlib.contextmanager
def _ready_to_fork() -> Iterator[None]:
    """Within the block, the DataLoader's processes can be started.

    Signals are blocked there, and with that for all of the processes' time. OpenCV runs no threads,
    since these don't survive a fork. The DataLoader's handler of SIGCHLD, which would raise an
    error wherever the program is when a process dies, is taken back: the DataLoader also looks
    whether its processes live while it waits for an image.
    """
    threads = cv2.getNumThreads()
    on_child = signal.getsignal(signal.SIGCHLD)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        cv2.setNumThreads(1)
        yield
    finally:
        cv2.setNumThreads(threads)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, on_child)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
