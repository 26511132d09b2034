"""What a benchmark runs on: the machine, its software and its memory."""

from __future__ import annotations

import contextlib
import datetime
import os
import platform
from pathlib import Path
from typing import Any

import detectron2
import torch
import torchvision

from vmb_d2.utils.devices import device_name
from vmb_d2.version import __version__


def describe_machine(device: torch.device) -> dict[str, Any]:
    """The machine now, as plain values. ``load_average`` is that of the minute before."""
    now = datetime.datetime.now(datetime.timezone.utc)
    processor = _linux_field("/proc/cpuinfo", "model name") or platform.machine()
    return {
        "date": now.isoformat(timespec="seconds"),
        "device": str(device),
        "device_name": device_name(device) if device.type == "cuda" else processor,
        "processor": processor,
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "load_average": round(os.getloadavg()[0], 2),
        "versions": {
            "vmb_d2": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "detectron2": detectron2.__version__,
            "cuda": torch.version.cuda if device.type == "cuda" else None,
        },
    }


def reset_peak_memory(device: torch.device) -> None:
    """Let :func:`peak_memory` begin anew, as far as the system allows."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> dict[str, int]:
    """The most memory in bytes since :func:`reset_peak_memory`: ``host``, of this process, and on
    a GPU ``gpu``, of PyTorch."""
    found = {"host": int(_linux_field("/proc/self/status", "VmHWM").split()[0]) * 1024}
    if device.type == "cuda":
        found["gpu"] = torch.cuda.max_memory_allocated(device)
    return found


def _linux_field(path: str, name: str) -> str:
    """The first value of a field in a text file of Linux; "" where there is none."""
    for line in Path(path).read_text().splitlines():
        if line.startswith(name):
            return line.partition(":")[2].strip()
    return ""
