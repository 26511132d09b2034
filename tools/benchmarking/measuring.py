"""What a benchmark measures, in which order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vmb_d2.errors import ConfigError
from vmb_d2.extractor import RegionFeatureExtractor
from vmb_d2.structures.input_image import InputImage
from vmb_d2.utils.devices import PRECISIONS

from .configuration import Configuration
from .machine import describe_machine
from .made_scores import selection_seconds
from .original import OriginalLoop
from .peak import peak_macs_per_second
from .workload import padded_sizes

PARTS = ("network", "stages", "end_to_end", "original", "selection")
ORIGINAL_PRECISION = "fp32"

Load = Callable[[str], RegionFeatureExtractor]


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes:
        images: each with a name of its own.
        precisions: of :data:`vmb_d2.utils.devices.PRECISIONS`.
        batch_sizes: images in the network at a time.
        repeats: how many times each figure is taken, after one round to warm up.
        parts: of :data:`PARTS`.
        store_format: see ``output.format``.

    Raises:
        ConfigError: a value is out of range.
    """

    images: Sequence[InputImage]
    precisions: Sequence[str] = ("fp32",)
    batch_sizes: Sequence[int] = (1,)
    repeats: int = 3
    parts: Sequence[str] = PARTS
    store_format: str = "mmf"

    def __post_init__(self):
        if self.repeats < 1:
            raise ConfigError(f"--repeats={self.repeats}: has to be at least 1")
        for name in self.precisions:
            if name not in PRECISIONS:
                raise ConfigError(f"--precision={name}: valid are {', '.join(PRECISIONS)}")
        for size in self.batch_sizes:
            if size < 1:
                raise ConfigError(f"--batch-sizes={size}: has to be at least 1")
        for name in self.parts:
            if name not in PARTS:
                raise ConfigError(f"no part {name}: valid are {', '.join(PARTS)}")

    def batch_sizes_of(self) -> dict[str, list[int]]:
        """Of each precision that a model is needed in, the batch sizes to measure it with."""
        found = {}
        if {"network", "stages", "end_to_end"} & set(self.parts):
            found = {name: list(dict.fromkeys(self.batch_sizes)) for name in self.precisions}
        if "original" in self.parts:
            found.setdefault(ORIGINAL_PRECISION, [])
        return found


def measure(
    plan: Plan,
    load: Load,
    device: torch.device,
    folder: Path,
    progress: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Measure, and give plain values; docs/performance.md describes the keys.

    Within a precision the parts take turns, so that whatever else the machine does at a time meets
    all of them.

    Args:
        plan: what.
        load: gives the extractor of a precision, on ``device``.
        device: where the network runs.
        folder: for what is written; it is removed again.
        progress: is told what comes.

    Raises:
        ConfigError, ImageReadError, OutputError, and what ``load`` raises.
    """
    found: dict[str, Any] = {
        "machine": describe_machine(device),
        "images": {"count": len(plan.images), "padded_sizes": padded_sizes(plan.images)},
        "repeats": plan.repeats,
        "format": plan.store_format,
        "peak_macs_per_second": {},
        "configurations": [],
    }
    for precision, batch_sizes in plan.batch_sizes_of().items():
        progress(f"{precision}: loading the model")
        extractor = load(precision)
        original = None
        if "original" in plan.parts and precision == ORIGINAL_PRECISION:
            original = OriginalLoop(extractor, plan.images, folder)
        configurations = [
            Configuration(precision, extractor, plan.images, size, plan.store_format, folder)
            for size in batch_sizes
        ]
        peak = _take_turns(plan, configurations, original, progress)
        if configurations:
            found["peak_macs_per_second"][precision] = peak
            found["configurations"] += [c.as_dict(peak) for c in configurations]
        if original is not None:
            found["original"] = original.as_dict()
        del extractor, original, configurations
        if device.type == "cuda":
            torch.cuda.empty_cache()
    if "selection" in plan.parts:
        found["selection"] = selection_seconds(device, plan.repeats, progress)
    return found


def _take_turns(
    plan: Plan,
    configurations: Sequence[Configuration],
    original: OriginalLoop | None,
    progress: Callable[[str], None],
) -> float:
    """Measure all that a model in one precision is needed for.

    Returns the multiply-accumulates a second of a product of matrices; 0 where none was wanted.
    """
    peak = 0.0
    for configuration in configurations:
        progress(f"{configuration}: warming up")
        configuration.warm_up()
    if original is not None:
        progress("the original's loop: warming up")
        original.warm_up()
    for repeat in range(plan.repeats):
        number = f"{repeat + 1} of {plan.repeats}"
        for configuration in configurations:
            progress(f"{configuration}: {number}")
            device = configuration.extractor.model.device
            peak = max(peak, peak_macs_per_second(configuration.precision, device))
            configuration.measure(plan.parts)
        if original is not None:
            progress(f"the original's loop: {number}")
            original.measure()
    return peak
