"""The whole extraction, as tools/extract.py runs it: by itself, for long, and as a program."""

from __future__ import annotations

import contextlib
import logging
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from vmb_d2.data.batching import Batching
from vmb_d2.engine.job import ExtractionJob
from vmb_d2.errors import ConfigError, OutputError
from vmb_d2.extractor import RegionFeatureExtractor
from vmb_d2.structures.input_image import InputImage

from .memory import MemoryWatch
from .spread import Spread


@dataclass(frozen=True)
class Runs:
    """Extractions into new folders.

    Attributes:
        store_format: see ``output.format``.
        batch_size: see ``extract.batch_size``.
    """

    store_format: str = "mmf"
    batch_size: int = 1

    def seconds(
        self, extractor: RegionFeatureExtractor, images: Sequence[InputImage], folder: Path
    ) -> float:
        """From before the first image is read to after the last one is written.

        Raises ConfigError where not all could be extracted in batches of this size.
        """
        job = ExtractionJob(
            folder,
            formats=[self.store_format],
            options=extractor.options,
            batching=Batching(batch_size=self.batch_size),
        )
        with _quiet():
            report = job.run(images, lambda: extractor, extractor.description)
        if report.out_of_memory:
            raise out_of_memory(self.batch_size)
        if report.failed:
            raise ConfigError(f"--images: {report.failed} of {len(images)} can't be extracted")
        return report.seconds

    def endurance(
        self, extractor: RegionFeatureExtractor, images: Sequence[InputImage], folder: Path
    ) -> dict:
        """The memory over a long run: ``images``, ``seconds`` and ``memory_bytes``."""
        with MemoryWatch() as watch:
            seconds = self.seconds(extractor, images, folder)
        return {"images": len(images), "seconds": seconds, "memory_bytes": watch.summary()}


def out_of_memory(batch_size: int) -> ConfigError:
    """The error to raise where a batch doesn't fit."""
    return ConfigError(f"--batch-sizes={batch_size}: the memory doesn't do for so many at once")


def start_up(
    command: Callable[[Path], Sequence[str]],
    folder: Path,
    repeats: int,
    progress: Callable[[str], None] = lambda text: None,
) -> dict[str, dict]:
    """Seconds of whole processes, from their start to their end.

    Args:
        command: for an output folder, the program and arguments that extract one image into it.
        folder: to make the output folders in.
        repeats: how many times.
        progress: is told what comes.

    Returns:
        ``one_image``, and ``nothing_to_do``, where it is there already: Spreads as dicts.

    Raises:
        OutputError: the program failed.
    """
    times = {"one_image": [], "nothing_to_do": []}
    for repeat in range(repeats):
        for what, seconds in times.items():
            progress(f"start-up, {what.replace('_', ' ')}, {repeat + 1} of {repeats}")
            begin = time.perf_counter()
            done = subprocess.run(
                command(folder / str(repeat)), capture_output=True, text=True, check=False
            )
            seconds.append(time.perf_counter() - begin)
            if done.returncode:
                lines = done.stderr.strip().splitlines() or ["no reason given"]
                raise OutputError(f"--startup: {lines[-1]} (exit status {done.returncode})")
    return {what: asdict(Spread.of(seconds)) for what, seconds in times.items()}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Of the extraction, which would tell of each run, only warnings."""
    logger = logging.getLogger("vmb_d2")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)
