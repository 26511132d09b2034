"""Where to run, and what it is."""

from __future__ import annotations

import logging
import os
import platform
import re
import subprocess
import warnings
from pathlib import Path

import torch

from ..errors import ConfigError, first_line

_PROC = Path("/proc/driver/nvidia")
_NO_KERNELS = "no kernel image"  # of an error: this PyTorch isn't built for such a GPU

logger = logging.getLogger(__name__)


def device_of(name: str | torch.device) -> torch.device:
    """The device for ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    ``auto`` is a GPU where PyTorch can use one. Where there is an NVIDIA GPU that it can't use,
    ``auto`` is the CPU, with a warning that says why.

    Raises:
        ConfigError: no such device, or a GPU that PyTorch can't use.
    """
    name = str(name)
    with warnings.catch_warnings(record=True) as said:  # once a process, why there is no GPU
        warnings.simplefilter("always")
        gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    wanted = ("cuda" if gpus else "cpu") if name == "auto" else name
    valid = ["cpu", *(["cuda"] if gpus else []), *(f"cuda:{i}" for i in range(gpus))]
    problem = None
    if wanted in valid and wanted != "cpu":
        problem = _why_unfit(wanted)
    elif not gpus and (name == "auto" or name.startswith("cuda")):
        problem = _why_none([str(warning.message) for warning in said])
    if problem and name != "auto":
        raise ConfigError(f"device={name}: {problem}")
    if problem:
        logger.warning("device=auto: the CPU, since %s", problem)
        wanted = "cpu"
    if wanted not in valid:
        raise ConfigError(f"device={name}: valid here are auto, {', '.join(valid)}")
    return torch.device(wanted)


def _why_unfit(device: str) -> str | None:
    """Why PyTorch has no operators for the GPU ``device``; None where it has."""
    try:
        torch.zeros(1, device=device).add_(1).item()
    except RuntimeError as error:
        if _NO_KERNELS in str(error):
            return _unusable(torch.cuda.get_device_name(device), first_line(error))
    return None


def _why_none(said: list[str]) -> str | None:
    """Why PyTorch finds none of this machine's NVIDIA GPUs; None where there is none to find.

    ``said`` is what PyTorch warned of when it looked for one.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and not re.match(r"\s*(\d|GPU-|MIG-)", visible):
        return None  # hidden on purpose
    gpu = _nvidia_smi() or _kernel_driver()
    if gpu is None:
        return None
    if torch.version.cuda is None:
        return _unusable(gpu, "it is built without CUDA")
    reasons = [text.partition("CUDA initialization: ")[2].split(". ")[0] for text in said]
    if visible is not None:
        reasons.append(f"CUDA_VISIBLE_DEVICES={visible}")
    return _unusable(gpu, "; ".join(filter(None, reasons)) or "it finds no GPU")


def _unusable(gpu: str, reason: str) -> str:
    return (
        f"PyTorch {torch.__version__} can't use {gpu} ({reason}); "
        'another PyTorch: make install TORCH="torch==X torchvision==Y", see README.md'
    )


def _nvidia_smi() -> str | None:
    """The first GPU and the driver's version, from NVIDIA's own program."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    name, _, driver = done.stdout.partition("\n")[0].partition(", ")
    return f"{name}, driver {driver}" if driver else None


def _kernel_driver() -> str | None:
    """The same from the kernel's driver: in a container or after an update, that program fails."""
    try:
        (model, *_) = (path.read_text() for path in sorted(_PROC.glob("gpus/*/information")))
        version = (_PROC / "version").read_text()
    except (OSError, ValueError):
        return None
    name = re.search(r"^Model:\s*(.*)$", model, re.MULTILINE)
    driver = re.search(r"\s(\d+\.[\d.]+)\s", version)
    return f"{name[1] if name else 'an NVIDIA GPU'}, driver {driver[1] if driver else 'unknown'}"


def device_name(device: torch.device) -> str:
    """What the device calls itself, for records."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return platform.processor() or platform.machine()


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an operator failed for want of memory, on a GPU or on the CPU."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
