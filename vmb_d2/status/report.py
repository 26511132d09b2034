"""A run's status as plain values: all there is to say about it."""

from __future__ import annotations

import contextlib
import datetime
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..errors import OutputError
from ..output.failures import FILE_NAME, FailureLog
from .part import DEAD, RUNNING, STATES, UNFINISHED, Part
from .remaining import Next
from .run import Status


def report(status: Status, following: Next, now: float) -> dict[str, Any]:
    """What ``tools/status.py --json`` prints, and the text says.

    Args:
        status: of the run.
        following: what is to be done next.
        now: seconds since 1970.
    """
    totals = asdict(status.totals)
    seconds = {"running": totals.pop("running_seconds"), "all": totals.pop("all_seconds")}
    unknown, rate = totals.pop("unknown"), totals.pop("rate")
    sources = {part.shard.source for part in status.parts if part.shard}
    return {
        "folder": str(status.folder),
        "time": _utc(now),
        "complete": status.is_complete,
        "sharded": status.is_sharded,
        "lists": len(sources - {""}),
        "states": {state: len(status.of(state)) for state in STATES},
        "images": totals,
        "parts_of_unknown_size": unknown,
        "images_per_second": rate,
        "seconds_left": seconds,
        "parts": [_part(status.folder, part, now) for part in status.parts],
        "failures": list(_failures(status)),
        "next": {
            "what": following.what,
            "commands": following.commands,
            "command_unknown": [part.name for part in following.unknown],
            "remarks": following.remarks,
        },
        "aside": status.aside,
        "problems": status.problems,
    }


def _part(folder: Path, part: Part, now: float) -> dict[str, Any]:
    silent = None if part.last_sign is None else max(0.0, round(now - part.last_sign, 3))
    return {
        "name": part.name,
        "state": part.state,
        "images": part.images,
        "at_most": part.at_most,
        "done": part.done,
        "failed": part.failed,
        "left": part.left,
        "images_per_second": part.rate,
        "last_sign_of_life": None if part.last_sign is None else _utc(part.last_sign),
        "seconds_since": silent,
        "ended": None if part.state in (RUNNING, DEAD) else part.ended or None,
        "reason": part.reason,
        "host": part.host,
        "job": part.job,
        "folder": str(part.folder),
        "log": _log(folder, part) if part.state in UNFINISHED else None,
    }


def _log(folder: Path, part: Part) -> str | None:
    """The folder with the log of a cluster's job, where it is where it is by default."""
    if not isinstance(part.job, str):
        return None
    path = folder / "logs" / part.job.split(",")[0]  # less the number of restarts
    return str(path) if path.is_dir() else None


def _failures(status: Status) -> Iterator[dict[str, Any]]:
    """The files that tell of failed images. Only those are read that have to be there."""
    for part in status.parts:
        if not part.failed or part.is_packing:
            continue
        stages = {}
        with contextlib.suppress(OutputError, TypeError):  # it is said where it is, at least
            stages = {e["name"]: str(e.get("stage")) for e in FailureLog(part.folder).read()}
        yield {
            "path": str(part.folder / FILE_NAME),
            "images": part.failed,
            "stages": dict(sorted(Counter(stages.values()).items())),
        }


def _utc(seconds: float) -> str:
    moment = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
    return moment.isoformat(timespec="seconds")
