"""How far a run is, as its output folder says."""

from __future__ import annotations

from .part import RUNNING, STATES, UNFINISHED, Part
from .status import Status, read_status

__all__ = ["RUNNING", "STATES", "UNFINISHED", "Part", "Status", "read_status"]
