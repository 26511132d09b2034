"""Batches with their images, which are read ahead while the network computes."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from typing import TYPE_CHECKING

from ..config.input_step import MMF_INPUT, InputStep
from ..errors import ImageReadError
from ..structures.input_image import InputImage
from .batching import Batch
from .preprocessing import NetworkImage, load

if TYPE_CHECKING:
    import torch

MOST_DEFAULT_WORKERS = 8

logger = logging.getLogger(__name__)

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
    batches: Iterable[Batch[InputImage]],
    workers: int,
    batch_size: int,
    step: InputStep = MMF_INPUT,
) -> Generator[tuple[Batch[InputImage], list[Outcome]]]:
    """Each batch with its images, in order. An image that can't be read is an ImageReadError.

    Pillow's warnings of an image are logged.

    The tensors of a batch may be overwritten once the next batch but one is asked for.

    Args:
        batches: of ``batch_size`` images at most; asked for as far ahead as images are read.
        workers: how many processes read images; 0: this process does, when a batch is asked for.
        batch_size: the most images of a batch. Processes read two batches ahead, or two images each
            where these are more.
        step: how images become the network's input.

    Raises:
        ConfigError: the processes can't be started, or one was killed.
    """
    waiting: deque[Batch[InputImage]] = deque()

    def paths() -> Iterator[str]:
        for batch in batches:
            waiting.append(batch)
            yield from (image.path for image in batch.images)

    outcomes: Generator[Outcome]
    if workers:
        from .workers import read_in_processes

        ahead = max(2, -(-2 * batch_size // workers))
        outcomes = read_in_processes(paths(), workers, step, ahead=ahead, kept=2 * batch_size)
    else:
        outcomes = (outcome_of(path, step) for path in paths())
    with contextlib.closing(outcomes):
        for first in outcomes:
            batch = waiting.popleft()
            found = [first, *itertools.islice(outcomes, len(batch.images) - 1)]
            for image, outcome in zip(batch.images, found, strict=True):
                if isinstance(outcome, NetworkImage):
                    for text in outcome.warnings:
                        logger.warning("%s: %s", image.path, text)
            yield batch, found


def outcome_of(path: str, step: InputStep) -> Outcome:
    """The image, or why it can't be read."""
    try:
        return load(path, step)
    except ImageReadError as error:
        return error
