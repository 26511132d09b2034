"""What a benchmark ran on."""

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


def processor_name() -> str:
    """The CPU's own name, as far as the system tells."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def describe_machine(device: torch.device) -> dict[str, Any]:
    """The machine now, as plain values. ``load_average`` is that of the minute before."""
    now = datetime.datetime.now(datetime.timezone.utc)
    return {
        "date": now.isoformat(timespec="seconds"),
        "device": str(device),
        "device_name": device_name(device) if device.type == "cuda" else processor_name(),
        "processor": processor_name(),
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
