"""Batches with their images, read while the network is at work on the ones before."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from typing import TYPE_CHECKING

from ..errors import ImageReadError
from ..structures.input_image import InputImage
from . import preprocessing as images
from .batching import Batch
from .preprocessing import NetworkImage
from .reader_pool import ReaderPool

if TYPE_CHECKING:
    import torch

MOST_DEFAULT_WORKERS = 8

Outcome = NetworkImage | ImageReadError


def default_workers(device: torch.device) -> int:
    """How many processes read images for a network on ``device``.

    On a GPU, one for each core but one that this process may use, 8 at most. None on the CPU: the
    network has all of its cores.
    """
    if device.type == "cpu":
        return 0
    return min(len(os.sched_getaffinity(0)) - 1, MOST_DEFAULT_WORKERS)


def slots(workers: int, batch_size: int) -> int:
    """How many images have a place in memory: a batch in the network, and those read ahead.

    These are two batches, or two images a process where that is more.
    """
    return batch_size + 2 * max(batch_size, workers)


def loaded_batches(
    batches: Iterable[Batch[InputImage]], workers: int, batch_size: int
) -> Generator[tuple[Batch[InputImage], list[Outcome]]]:
    """Each batch with its images, or what they can't be read for, in order.

    The images' memory is theirs until the next batch is asked for.

    Args:
        batches: of ``batch_size`` images at most; asked for only as far ahead as images are read.
        workers: how many processes read; 0: this one, when a batch is asked for.

    Raises ConfigError where processes can't be started.
    """
    if not workers:
        for batch in batches:
            yield batch, [_outcome(images.load, image.path) for image in batch.images]
        return
    batches = iter(batches)
    waiting: deque[Batch[InputImage]] = deque()
    with ReaderPool(workers, slots(workers, batch_size)) as pool:
        batch = next(batches, None)
        while batch is not None or waiting:
            while batch is not None and len(batch.images) <= pool.room:
                for image in batch.images:
                    pool.submit(image.path)
                waiting.append(batch)
                batch = next(batches, None)
            first = waiting.popleft()
            yield first, [_outcome(pool.take) for _ in first.images]
            pool.release()


def _outcome(read: Callable[..., NetworkImage], *arguments) -> Outcome:
    try:
        return read(*arguments)
    except ImageReadError as error:
        return error
