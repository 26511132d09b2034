"""How much memory a process takes: now, at most, and over a long run."""

from __future__ import annotations

import contextlib
import os
import resource
import statistics
import threading
from array import array
from pathlib import Path

import torch

_PROC = Path("/proc")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def resident_bytes(pid: int | str = "self") -> int:
    """What a process holds in memory now; 0 if there is no such process."""
    try:
        return int((_PROC / str(pid) / "statm").read_text().split()[1]) * _PAGE
    except OSError:
        return 0


def descendants(pid: int | str = "self") -> list[int]:
    """The processes that a process has started, and those that these have."""
    found = []
    with contextlib.suppress(OSError):
        for task in (_PROC / str(pid) / "task").iterdir():
            with contextlib.suppress(OSError):
                for child in map(int, (task / "children").read_text().split()):
                    found += [child, *descendants(child)]
    return found


def forget_peak(device: torch.device) -> None:
    """Let :func:`peak_bytes` begin anew, as far as the system allows."""
    with contextlib.suppress(OSError):
        (_PROC / "self" / "clear_refs").write_text("5")
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_bytes(device: torch.device) -> dict[str, int | None]:
    """The most memory since :func:`forget_peak`: ``host``, of this process alone, and ``gpu``.

    ``host`` is that of the whole life of the process where the system doesn't let it be forgotten;
    ``gpu`` is None on the CPU.
    """
    gpu = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    return {"host": _host_peak(), "gpu": gpu}


def _host_peak() -> int:
    with contextlib.suppress(OSError):
        for line in (_PROC / "self" / "status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class MemoryWatch:
    """Takes down what this process, and those that it started, hold in memory.

    A context manager.

    Args:
        seconds: between two looks.
    """

    def __init__(self, seconds: float = 0.2):
        self.seconds = seconds
        self.own = array("q")
        self.started = array("q")
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(self, *exception) -> None:
        self._over.set()
        self._thread.join()
        self._look()  # one at least

    def _watch(self) -> None:
        while not self._over.wait(self.seconds):
            self._look()

    def _look(self) -> None:
        self.own.append(resident_bytes())
        self.started.append(sum(map(resident_bytes, descendants())))

    def summary(self) -> dict[str, dict[str, int]]:
        """``own`` and ``started`` (shared pages count in each): bytes as :func:`course` has them"""
        return {"own": course(self.own), "started": course(self.started)}


def course(values: array | list[int]) -> dict[str, int]:
    """Median of the first, the middle and the last tenth of ``values``, and the largest."""
    count = max(1, len(values) // 10)
    middle = (len(values) - count) // 2
    return {
        "start": int(statistics.median(values[:count])),
        "middle": int(statistics.median(values[middle : middle + count])),
        "end": int(statistics.median(values[-count:])),
        "peak": max(values),
    }
