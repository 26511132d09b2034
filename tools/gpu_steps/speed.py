"""The step "speed": images a second of each model, in each precision, end to end and by stages."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from benchmark import repeated
from benchmarking.measuring import Plan, measure

from vmb_d2.errors import ConfigError
from vmb_d2.extractor import RegionFeatureExtractor
from vmb_d2.structures.input_image import InputImage
from vmb_d2.utils.devices import check_precision, estimated_batch_size

from .networks import Networks
from .steps import Case, Result, Step

PRECISIONS = ("fp32", "bf16", "tf32", "fp16")  # in the order of their worth


@dataclass(frozen=True)
class Counts:
    """How much is measured.

    Attributes:
        end_to_end: images of an extraction from files to files, of the first model.
        of_others: the same of the other models.
        network: images of the network alone and of the stages.
        original: images of the original's loop.
        batch_sizes: compared, of the first model.
    """

    end_to_end: int = 200
    of_others: int = 48
    network: int = 48
    original: int = 4
    batch_sizes: tuple[int, ...] = (1, 2, 4, 8, 16)


@dataclass(frozen=True)
class Speed:
    """What is measured, on which images.

    Attributes:
        photographs: repeated over and over.
        counts: how much is measured.
    """

    networks: Networks
    photographs: Sequence[InputImage]
    counts: Counts

    def step(self, names: Sequence[str]) -> Step:
        """The first model in full, then the others.

        ``names``: models, by their listings.
        """
        cases: dict[str, Case] = {}
        precisions = available(self.networks.device)
        for name in names:
            is_first = name == names[0]
            count = self.counts.end_to_end if is_first else self.counts.of_others
            for precision in precisions:
                rate = functools.partial(self.rates, name, precision, count)
                cases[f"{name} {precision}"] = rate
            cases[f"{name} original"] = functools.partial(self.original, name)
            for precision in precisions if is_first else ():
                sweep = functools.partial(self.batch_sizes, name, precision)
                cases[f"{name} {precision} batch sizes"] = sweep
        return Step("speed", cases, weight=5)

    def rates(self, name: str, precision: str, count: int) -> Result:
        """Network alone, stages, and end to end, in batches of the size that ``auto`` chooses."""
        size = estimated_batch_size(self.networks.device, precision, count)
        plan = functools.partial(self._measured, name, [precision], [size])
        parts = plan(self.counts.network, ["network", "stages"])
        whole = plan(count, ["end_to_end"])
        (own,), (end_to_end,) = parts["configurations"], whole["configurations"]
        network, files = own["network"], end_to_end["end_to_end"]
        return {
            "summary": f"network {network['images_per_second']:.3g} images/s, "
            f"{network['share_of_peak']:.0%} of the peak; end to end "
            f"{files['images_per_second']:.3g}; batch size {size}",
            "model": name,
            "precision": precision,
            "images": {"network": self.counts.network, "end_to_end": count},
            "padded_sizes": parts["images"]["padded_sizes"],
            "peak_macs_per_second": parts["peak_macs_per_second"][precision],
            "configuration": {**own, **end_to_end},
        }

    def original(self, name: str) -> Result:
        """The original's loop, emulated."""
        found = self._measured(name, [], [], self.counts.original, ["original"], repeats=2)
        if "original" not in found:
            return {"summary": "its loop is not emulated", "model": name}
        loop = found["original"]
        rate = f"{loop['images_per_second']:.3g} images/s"
        return {"summary": rate, "model": name, "images": self.counts.original, "original": loop}

    def batch_sizes(self, name: str, precision: str) -> Result:
        """The network alone, in batches of several sizes."""
        sizes = self.counts.batch_sizes
        count = 2 * max(sizes)
        done: list[dict[str, Any]] = []
        for size in sizes:
            try:
                found = self._measured(name, [precision], [size], count, ["network"])
            except ConfigError as error:  # the memory doesn't suffice
                done.append({"batch_size": size, "error": str(error)})
                break
            (own,) = found["configurations"]
            done.append({"batch_size": size, "network": own["network"]})
        rates = ", ".join(
            f"{d['batch_size']}: {d['network']['images_per_second']:.3g}"
            if "network" in d
            else f"{d['batch_size']}: no memory"
            for d in done
        )
        summary = f"images/s by batch size: {rates}"
        return {"summary": summary, "model": name, "precision": precision, "sizes": done}

    def _measured(
        self,
        name: str,
        precisions: Sequence[str],
        sizes: Sequence[int],
        count: int,
        parts: Sequence[str],
        repeats: int = 1,
    ) -> dict[str, Any]:
        images = repeated(self.photographs, count)
        plan = Plan(images, precisions, sizes, repeats, parts)

        def load(precision: str, layer_by_layer: bool) -> RegionFeatureExtractor:
            return self.networks.extractor(name, precision=precision, layer_by_layer=layer_by_layer)

        return measure(plan, load, self.networks.device)


def available(device: torch.device) -> list[str]:
    """The precisions that a device has."""
    found = []
    for precision in PRECISIONS:
        try:
            check_precision(precision, device)
        except ConfigError:
            continue
        found.append(precision)
    return found
