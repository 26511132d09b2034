"""What a benchmark measures, in which order."""

from __future__ import annotations

import contextlib
import logging
import statistics
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from vmb_d2.data.batching import Batching
from vmb_d2.data.preprocessing import read_padded_size
from vmb_d2.engine.job import ExtractionJob
from vmb_d2.errors import ConfigError
from vmb_d2.extractor import RegionFeatureExtractor
from vmb_d2.output.store_set import StoreSet
from vmb_d2.structures.input_image import InputImage
from vmb_d2.utils.devices import is_out_of_memory

from .machine import describe_machine, peak_memory, reset_peak_memory
from .original import READ_OUTS, original_stages
from .stages import STAGES, count_macs, network_seconds, peak_macs_per_second, run_stages

PARTS = ("network", "stages", "end_to_end", "original")
EXACT = "fp32"  # the precision of the original's loop

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes:
        images: each with its own name.
        precisions: of :data:`vmb_d2.utils.devices.PRECISIONS`.
        batch_sizes: images in the network at a time.
        repeats: how many times each figure is taken, after one round to warm up.
        parts: of :data:`PARTS`.
        store_format: of the output.
    """

    images: Sequence[InputImage]
    precisions: Sequence[str] = (EXACT,)
    batch_sizes: Sequence[int] = (1,)
    repeats: int = 3
    parts: Sequence[str] = PARTS
    store_format: str = "mmf"


@dataclass
class Configuration:
    """The measurements of one precision and batch size."""

    plan: Plan
    precision: str
    extractor: RegionFeatureExtractor
    batch_size: int
    _macs: float = 0.0
    _seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    _memory: list[dict[str, int]] = field(default_factory=list)  # the peaks of end-to-end runs

    def __str__(self) -> str:
        return f"{self.precision}, batch size {self.batch_size}"

    def warm_up(self) -> None:
        """Run the network once, and count its operations. Raises as :meth:`measure`."""
        with self._step():
            self._macs = count_macs(self.extractor, self.plan.images, self.batch_size)

    def measure(self) -> None:
        """Measure each of the plan's parts once.

        Raises ImageReadError, OutputError, or ConfigError where the memory doesn't suffice.
        """
        arguments = self.extractor, self.plan.images, self.batch_size
        if "network" in self.plan.parts:
            with self._step():
                self._seconds["network"].append(network_seconds(*arguments))
        if "stages" in self.plan.parts:
            with self._step() as folder, StoreSet(folder, [self.plan.store_format]) as stores:

                def write(images, results) -> None:  # each batch is safe on the disk, as in a run
                    for image, regions in zip(images, results, strict=True):
                        stores.write(image.name, regions)
                    stores.flush()

                seconds = run_stages(*arguments, write)
            for stage, value in seconds.items():
                self._seconds[stage].append(value)
            self._seconds["sum_of_stages"].append(sum(seconds.values()))
        if "end_to_end" in self.plan.parts:
            device = self.extractor.model.device
            reset_peak_memory(device)
            with self._step() as folder:
                self._seconds["end_to_end"].append(self._run_job(folder))
            self._memory.append(peak_memory(device))

    @contextlib.contextmanager
    def _step(self) -> Iterator[Path]:
        """A folder to write into. Running out of memory is an error of the batch size."""
        with tempfile.TemporaryDirectory(prefix="vmb_d2_benchmark_") as folder:
            try:
                yield Path(folder)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                reason = "the memory doesn't suffice for so many at once"
                raise ConfigError(reason, field="batch_sizes", value=self.batch_size) from error

    def _run_job(self, folder: Path) -> float:
        """Seconds of a run as tools/extract.py makes it."""
        job = ExtractionJob(
            folder,
            formats=[self.plan.store_format],
            options=self.extractor.options,
            batching=Batching(batch_size=self.batch_size),
        )
        counts = job.run(self.plan.images, lambda: self.extractor, self.extractor.description)
        if counts.out_of_memory:  # the job went on with smaller batches
            raise torch.OutOfMemoryError
        return counts.seconds

    def figures(self, peak: float) -> dict[str, Any]:
        """The figures of one image; docs/performance.md describes the keys.

        Args:
            peak: multiply-accumulates a second that the device reaches.
        """
        count = len(self.plan.images)
        figures = {name: rates(seconds, count) for name, seconds in self._seconds.items()}
        found: dict[str, Any] = {"precision": self.precision, "batch_size": self.batch_size}
        if network := figures.get("network"):
            macs, seconds = self._macs / count, network["seconds"]["median"]
            network.update(macs=macs, macs_per_second=macs / seconds)
            network["share_of_peak"] = network["macs_per_second"] / peak
        if "sum_of_stages" in figures:
            found["stages"] = {stage: figures.pop(stage) for stage in STAGES}
        if self._memory:
            where = self._memory[0]
            found["peak_memory_bytes"] = {key: max(m[key] for m in self._memory) for key in where}
        return {**found, **figures}


def measure(
    plan: Plan,
    load: Callable[[str, bool], RegionFeatureExtractor],
    device: torch.device,
) -> dict[str, Any]:
    """Measure, and return plain values; docs/performance.md describes the keys.

    Within a precision the configurations take turns, so that what else the machine does concerns
    all of them.

    Args:
        plan: what to measure.
        load: returns the extractor of a precision, on ``device``, and whether layer by layer.
        device: where the network runs.

    Raises:
        ConfigError, ImageReadError, OutputError, and what ``load`` raises.
    """
    found: dict[str, Any] = {
        "machine": describe_machine(device),
        "images": {"count": len(plan.images), "padded_sizes": {}},
        "repeats": plan.repeats,
        "format": plan.store_format,
        "peak_macs_per_second": {},
        "configurations": [],
    }
    with_original = "original" in plan.parts
    for precision in dict.fromkeys([*([EXACT] if with_original else []), *plan.precisions]):
        logger.info("%s: loading the model", precision)
        extractor = load(precision, False)
        padded = (read_padded_size(image.path, extractor.input_step) for image in plan.images)
        found["images"]["padded_sizes"] = dict(Counter("{}x{}".format(*size) for size in padded))
        original, read_out = None, extractor.read_out_rule.name
        if with_original and precision == EXACT:
            if read_out in READ_OUTS:
                original = load(precision, True)
            else:
                names = ", ".join(READ_OUTS)
                logger.info("the original's loop is measured with %s, not with %s", names, read_out)
        sizes = plan.batch_sizes if precision in plan.precisions else ()
        configurations = [Configuration(plan, precision, extractor, size) for size in sizes]
        originals, peak = [], 0.0
        for configuration in configurations:
            logger.info("%s: warming up", configuration)
            configuration.warm_up()
        for repeat in range(plan.repeats):
            turn = f"{repeat + 1} of {plan.repeats}"
            for configuration in configurations:
                logger.info("%s: %s", configuration, turn)
                peak = max(peak, peak_macs_per_second(precision, device))
                configuration.measure()
            if original is not None:
                logger.info("the original's loop: %s", turn)
                originals.append(original_stages(original, plan.images))
        if configurations:
            found["peak_macs_per_second"][precision] = peak
            found["configurations"] += [c.figures(peak) for c in configurations]
        if originals:
            count = len(plan.images)
            found["original"] = {
                **rates([sum(seconds.values()) for seconds in originals], count),
                "stages": {s: rates([o[s] for o in originals], count) for s in STAGES},
            }
        del extractor, original, configurations
    return found


def rates(seconds: Sequence[float], count: int) -> dict[str, Any]:
    """Statistics of repeated measurements of ``count`` images, for one image."""
    found = {"median": statistics.median(seconds), "least": min(seconds), "most": max(seconds)}
    spread = {**{key: value / count for key, value in found.items()}, "repeats": len(seconds)}
    return {"seconds": spread, "images_per_second": 1 / spread["median"]}
