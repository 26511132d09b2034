"""One precision and batch size, measured part by part."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vmb_d2.extractor import RegionFeatureExtractor
from vmb_d2.output.store_set import StoreSet
from vmb_d2.structures.input_image import InputImage
from vmb_d2.utils.devices import is_out_of_memory

from .end_to_end import Runs, out_of_memory
from .memory import forget_peak, peak_bytes
from .network import count_macs, network_seconds
from .spread import Spread
from .stages import STAGES, Laps, Write, clock, pass_through
from .workload import temporary_folder


class Configuration:
    """The measurements of one precision and batch size.

    Args:
        precision: its name, for the record.
        extractor: of that precision.
        images: to measure with.
        batch_size: images in the network at a time.
        store_format: see ``output.format``.
        folder: for what is written; it is removed again.
    """

    def __init__(
        self,
        precision: str,
        extractor: RegionFeatureExtractor,
        images: Sequence[InputImage],
        batch_size: int,
        store_format: str,
        folder: Path,
    ):
        self.precision = precision
        self.extractor = extractor
        self.images = images
        self.batch_size = batch_size
        self._runs = Runs(store_format, batch_size)
        self._folder = folder
        self._macs: dict[str, float] = {}
        self._stages: list[dict[str, float]] = []
        self._seconds: dict[str, list[float]] = {"network": [], "end_to_end": []}
        self._memory: dict[str, dict[str, int | None]] = {}
        self._parts: dict[str, Callable[[Path], None]] = {
            "network": self._measure_network,
            "stages": self._measure_stages,
            "end_to_end": self._measure_end_to_end,
        }

    def __str__(self) -> str:
        return f"{self.precision}, batch size {self.batch_size}"

    def warm_up(self) -> None:
        """Go once through all stages, and count what the network computes.

        Raises ImageReadError, OutputError or, where the memory doesn't do, ConfigError; so does
        :meth:`measure`.
        """
        with self._step() as folder, self._store(folder) as write:
            self._macs = count_macs(self.extractor, self.images, self.batch_size, write)

    def measure(self, parts: Collection[str]) -> None:
        """Measure those of ``parts`` once that are among ``network, stages, end_to_end``."""
        for part, measure_part in self._parts.items():
            if part in parts:
                with self._step() as folder:
                    measure_part(folder)

    def _measure_network(self, folder: Path) -> None:
        with self._peak_memory("network"):
            seconds = network_seconds(self.extractor, self.images, self.batch_size)
        self._seconds["network"].append(seconds)

    def _measure_stages(self, folder: Path) -> None:
        laps = Laps(clock(self.extractor.model.device))
        with self._store(folder) as write:
            pass_through(self.extractor, self.images, self.batch_size, laps, write)
        self._stages.append(laps.totals)

    def _measure_end_to_end(self, folder: Path) -> None:
        with self._peak_memory("end_to_end"):
            seconds = self._runs.seconds(self.extractor, self.images, folder)
        self._seconds["end_to_end"].append(seconds)

    @contextlib.contextmanager
    def _step(self) -> Iterator[Path]:
        """A folder to write into; running out of memory is the user's to mend."""
        with temporary_folder(self._folder) as folder:
            try:
                yield folder
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                raise out_of_memory(self.batch_size) from error

    @contextlib.contextmanager
    def _store(self, folder: Path) -> Iterator[Write]:
        """Write as the extraction does, each batch made safe."""
        with StoreSet(folder, [self._runs.store_format]) as stores:

            def write(images, results) -> None:
                for image, regions in zip(images, results, strict=True):
                    stores.write(image.name, regions)
                stores.flush()

            yield write

    @contextlib.contextmanager
    def _peak_memory(self, part: str) -> Iterator[None]:
        device = self.extractor.model.device
        forget_peak(device)
        yield
        before, now = self._memory.get(part, {}), peak_bytes(device)
        self._memory[part] = {
            where: None if size is None else max(size, before.get(where) or 0)
            for where, size in now.items()
        }

    def as_dict(self, peak: float) -> dict[str, Any]:
        """The figures an image, as plain values; docs/performance.md describes the keys.

        Args:
            peak: multiply-accumulates a second that the device reaches.
        """
        found: dict[str, Any] = {"precision": self.precision, "batch_size": self.batch_size}
        if self._seconds["network"]:
            seconds = self._spread(self._seconds["network"])
            found["network"] = self._rates(seconds, sum(self._macs.values()), peak)
        if self._stages:
            found["stages"] = {}
            for stage in STAGES:
                seconds = self._spread([laps[stage] for laps in self._stages])
                found["stages"][stage] = self._rates(seconds, self._macs[stage], peak)
            sums = [sum(laps.values()) for laps in self._stages]
            found["sum_of_stages"] = {"seconds": asdict(self._spread(sums))}
        if self._seconds["end_to_end"]:
            seconds = self._spread(self._seconds["end_to_end"])
            found["end_to_end"] = self._rates(seconds)
        found["peak_memory_bytes"] = self._memory
        return found

    def _spread(self, seconds: Sequence[float]) -> Spread:
        return Spread.of(seconds, divisor=len(self.images))

    def _rates(self, seconds: Spread, macs: float = 0, peak: float | None = None) -> dict:
        """``seconds``, ``images_per_second`` and, where there are any, ``macs`` and their rates."""
        found: dict[str, Any] = {
            "seconds": asdict(seconds),
            "images_per_second": 1 / seconds.median,
        }
        if macs:
            found["macs"] = macs / len(self.images)
            found["macs_per_second"] = found["macs"] / seconds.median
            found["share_of_peak"] = found["macs_per_second"] / peak
        return found
