"""Batches with their images, which are read ahead while the network computes."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from typing import TYPE_CHECKING

from ..errors import ImageReadError
from ..structures.input_image import InputImage
from .batching import Batch
from .preprocessing import NetworkImage, load

if TYPE_CHECKING:
    import torch

MOST_DEFAULT_WORKERS = 8

Outcome = NetworkImage | ImageReadError


def default_workers(device: torch.device) -> int:
    """How many processes read images for a network on ``device``.

    On a GPU, the number of cores that this process may use, less one, at most 8. On the CPU 0: the
    network uses all cores.
    """
    if device.type == "cpu":
        return 0
    return min(len(os.sched_getaffinity(0)) - 1, MOST_DEFAULT_WORKERS)


def loaded_batches(
    batches: Iterable[Batch[InputImage]], workers: int, batch_size: int
) -> Generator[tuple[Batch[InputImage], list[Outcome]]]:
    """Each batch with its images, in order. An image that can't be read is an ImageReadError.

    The tensors of a batch may be overwritten once the next batch is asked for.

    Args:
        batches: of ``batch_size`` images at most; asked for as far ahead as images are read.
        workers: how many processes read images; 0: this process does, when a batch is asked for.
        batch_size: the most images of a batch. Processes read two batches ahead, or two images each
            where these are more.

    Raises:
        ConfigError: the processes can't be started, or one was killed.
    """
    if not workers:
        for batch in batches:
            yield batch, [_outcome(image.path) for image in batch.images]
        return
    from .workers import read_in_processes

    waiting: deque[Batch[InputImage]] = deque()

    def paths() -> Iterator[str]:
        for batch in batches:
            waiting.append(batch)
            yield from (image.path for image in batch.images)

    ahead = max(2, -(-2 * batch_size // workers))
    outcomes = read_in_processes(paths(), workers, ahead=ahead, kept=batch_size)
    try:
        for outcome in outcomes:
            batch = waiting.popleft()
            yield batch, [outcome, *(next(outcomes) for _ in batch.images[1:])]
    finally:
        outcomes.close()


def _outcome(path: str) -> Outcome:
    try:
        return load(path)
    except ImageReadError as error:
        return error
