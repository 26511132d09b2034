"""The goldens' networks, each made once."""

from __future__ import annotations

import torch

from reference import models
from vmb_d2.modeling import VMBRCNN


class Networks:
    """Gives the network of a name, with the goldens' weights, on a device.

    It stays there until another is asked for, and then in main memory: what is measured of the
    device's memory is of one network.
    """

    def __init__(self, device: torch.device):
        self._device = device
        self._made: dict[str, VMBRCNN] = {}

    def __call__(self, name: str) -> VMBRCNN:
        for other, network in self._made.items():
            network.to(self._device if other == name else "cpu")
        if name not in self._made:
            self._made[name] = models.network(name, self._device)
        return self._made[name]
