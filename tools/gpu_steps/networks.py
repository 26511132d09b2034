"""The goldens' networks, each made once."""

from __future__ import annotations

from typing import Any

import torch

from reference import models
from vmb_d2.extractor import RegionFeatureExtractor
from vmb_d2.modeling import VMBRCNN


class Networks:
    """Gives the network of a name, with the goldens' weights, on a device.

    It stays there until another is asked for, and then in main memory: what is measured of the
    device's memory is of one network.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self._made: dict[str, VMBRCNN] = {}

    def __call__(self, name: str) -> VMBRCNN:
        for other, network in self._made.items():
            network.to(self.device if other == name else "cpu")
        if name not in self._made:
            self._made[name] = models.network(name, self.device)
        return self._made[name]

    def extractor(self, name: str, **options: Any) -> RegionFeatureExtractor:
        """An extractor of the network; ``options`` are its own."""
        description = models.description(name)
        return RegionFeatureExtractor(self(name), description=description, **options)
