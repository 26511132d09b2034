"""One record, a shard's or that of a run without shards: the two files read, and what they mean.

They may be replaced, or vanish, while they are read.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import OutputError
from ..output import manifest
from ..output.lock import LEASE_NAME
from ..output.shards import Shard
from ..utils import lease
from ..utils.lease import lives
from . import values
from .values import look_up, whole_number

STATES = (DONE, WITH_FAILURES, RUNNING, DEAD, STOPPED, FAILED, DAMAGED, NOT_STARTED) = (
    "done",
    "done with failures",
    "running",
    "dead",  # it began and didn't end, and there is no sign of life
    "stopped",  # interrupted: by a user, or by a cluster that lets it go on later
    "failed",
    "damaged",  # its manifest can't be read
    "not started",
)
UNFINISHED = (DEAD, STOPPED, FAILED, DAMAGED, NOT_STARTED)
_ENDED = {"interrupted": STOPPED, "failed": FAILED, "died": DEAD, "running": DEAD}


@dataclass(frozen=True)
class Part:
    """A shard, or a run without shards, and how far it is.

    Attributes:
        folder: where its record is.
        shard: None for a run without shards.
        state: one of :data:`STATES`.
        images: how many it is about; None where it isn't known.
        at_most: it may be about fewer, since some may be left out.
        done, failed: of them, as of the last word about it.
        rate: images a second, of a running one.
        last_sign: when it gave its last sign of life, in seconds since 1970, where it gives none
            any more: of a dead one, or of one that is halted.
        reason: why it failed or can't be read, in a line.
        host, job, pid: of the process that runs it, or did last.
        content: of its manifest.
    """

    folder: Path
    shard: Shard | None
    state: str
    images: int | None = None
    at_most: bool = False
    done: int = 0
    failed: int = 0
    rate: float | None = None
    last_sign: float | None = None
    reason: str | None = None
    host: str | None = None
    job: str | None = None
    pid: int | None = None
    content: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def name(self) -> str:
        return self.shard.name if self.shard else "this run"

    @property
    def begun(self) -> str:
        """When its last run began, UTC; "" where that isn't known. They sort by time."""
        return str(_last_run(self.content).get("started") or "")

    @property
    def ended(self) -> str:
        """When its last run ended, UTC; "" where it didn't or that isn't known."""
        return str(_last_run(self.content).get("ended") or "")

    @property
    def is_packing(self) -> bool:
        return _last_run(self.content).get("program") == "pack"

    @property
    def left(self) -> int | None:
        """Images to do; None where it isn't known."""
        return None if self.images is None else max(0, self.images - self.done - self.failed)


def read_part(folder: Path, shard: Shard | None, now: float) -> Part:
    """What is in writing in one folder.

    Args:
        folder: of the shard, or of the run without shards.
        shard: None for a run without shards.
        now: seconds since 1970.
    """
    for _ in range(2):  # where it ended between the two, the manifest says so now
        content, damage = _read_manifest(folder)
        holder, written = _read_lease(folder)
        run = _last_run(content)
        if holder is not None or run.get("state") != "running":
            break
    silent = written is not None and now - written > lease.EXPIRY_SECONDS
    state, reason = _state(content, damage, holder, silent)
    if state == DEAD and written is None:
        with contextlib.suppress(OSError):
            written = os.stat(folder / manifest.FILE_NAME).st_mtime
    lately = state in (RUNNING, DEAD)
    note = look_up(holder, "note") if lately else None
    owner = holder if holder and lately else run
    return Part(
        folder,
        shard,
        state,
        **values.counts(note) or _counts(content, state),
        rate=values.rate(note) if state == RUNNING else None,
        last_sign=written if state == DEAD or (state == RUNNING and silent) else None,
        reason=reason,
        **{key: owner.get(key) for key in ("host", "job", "pid")},
        content=content,
    )


def _state(
    content: Mapping[str, Any], damage: str | None, holder: Mapping[str, Any] | None, silent: bool
) -> tuple[str, str | None]:
    """The state, and the reason for it where it has one."""
    run = _last_run(content)
    noted = str(run.get("state"))
    if holder is not None:
        alive = lives(holder)
        if alive or (alive is None and not silent):
            return RUNNING, None
    if damage:
        return DAMAGED, damage
    # A lease that is left tells of a death, unless its holder had noted how it ended.
    if holder is not None and _process(holder) != _process(run):
        return DEAD, None
    if not content.get("runs"):
        return NOT_STARTED, None
    if noted == "finished":
        failed = whole_number(look_up(content, "counts", "failed"))
        return WITH_FAILURES if failed else DONE, None
    state = _ENDED.get(noted, DAMAGED)
    if state == DAMAGED:
        return state, f"{manifest.FILE_NAME} has an unknown state: {noted}"
    return state, str(run.get("error") or "it isn't known why") if state == FAILED else None


def _read_manifest(folder: Path) -> tuple[Mapping[str, Any], str | None]:
    """The content, or why it can't be read."""
    damage = None
    for _ in range(2):  # NFS may lose a file of which a new version comes just then
        try:
            content = manifest.Manifest(folder).content
        except OutputError as error:
            damage = str(error)
            continue
        runs = content.get("runs", [])
        if isinstance(runs, list) and all(isinstance(run, dict) for run in runs):
            return content, None
        damage = f"{folder / manifest.FILE_NAME}: is no manifest"
    return {}, damage


def _read_lease(folder: Path) -> tuple[Mapping[str, Any] | None, float | None]:
    """What the lease's file says, {} where that can't be read, and when it was written."""
    path = folder / LEASE_NAME
    try:
        holder = lease.read(path)
        if holder == {}:  # it is just being written
            holder = lease.read(path)
    except OSError:
        holder = {}
    if holder is not None:
        with contextlib.suppress(OSError):
            return holder, path.stat().st_mtime
    return None, None


def _last_run(content: Mapping[str, Any]) -> Mapping[str, Any]:
    runs = content.get("runs")
    return runs[-1] if runs else {}


def _process(owner: Mapping[str, Any]) -> tuple[Any, Any]:
    return owner.get("host"), owner.get("pid")


def _counts(content: Mapping[str, Any], state: str) -> dict[str, int]:
    """The counts in a manifest."""
    counts = content.get("counts")
    if _last_run(content).get("program") != "pack":
        return values.counts(counts)
    if state in (RUNNING, DEAD):  # they are an earlier run's
        return {}
    packed, before, failed = (
        whole_number(look_up(counts, key)) or 0 for key in ("packed", "there_before", "failed")
    )
    done = packed + before
    images = done + failed if state in (DONE, WITH_FAILURES) else None
    return {"images": images, "done": done, "failed": failed}
