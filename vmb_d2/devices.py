"""Where to run, and what it is."""

from __future__ import annotations

import platform

import torch

from .errors import ConfigError


def device_of(name: str | torch.device) -> torch.device:
    """The device for ``auto``, ``cpu``, ``cuda`` or ``cuda:N``. Raises ConfigError."""
    name = str(name)
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        name = "cuda" if gpus else "cpu"
    valid = ["cpu", *(["cuda"] if gpus else []), *(f"cuda:{i}" for i in range(gpus))]
    if name not in valid:
        raise ConfigError(f"device={name}: valid here are auto, {', '.join(valid)}")
    return torch.device(name)


def device_name(device: torch.device) -> str:
    """What the device calls itself, for records."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return platform.processor() or platform.machine()


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an operator failed for want of memory, on a GPU or on the CPU."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
