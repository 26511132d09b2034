"""How far a run is, by what it and its shards have in writing, and how to finish what is left."""

from __future__ import annotations

from .part import RUNNING, STATES, UNFINISHED, Part
from .remaining import Next, next_step
from .report import report
from .run import Status, read_status
from .text import lines

__all__ = [
    "RUNNING",
    "STATES",
    "UNFINISHED",
    "Next",
    "Part",
    "Status",
    "lines",
    "next_step",
    "read_status",
    "report",
]
