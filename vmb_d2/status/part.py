"""The record of a shard, or of a run without shards: its manifest and its lease.

Both files may be replaced or removed while they are read.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..output.lock import LEASE_NAME
from ..output.manifest import read_manifest
from ..output.shards import Shard
from ..utils import lease
from ..utils.lease import lives

STATES = (DONE, WITH_FAILURES, RUNNING, DEAD, STOPPED, FAILED, DAMAGED, NOT_STARTED) = (
    "done",
    "done with failures",
    "running",
    "dead",  # begun, not ended, and without a sign of life
    "stopped",  # by a signal
    "failed",  # by an error
    "damaged",  # the manifest can't be read
    "not started",
)
UNFINISHED = (DEAD, STOPPED, FAILED, DAMAGED, NOT_STARTED)
_ENDED = {"finished": DONE, "interrupted": STOPPED, "failed": FAILED}  # else it has died


@dataclass(frozen=True)
class Part:
    """A shard, or a run without shards, and how far it is.

    Attributes:
        folder: of its record.
        shard: None for a run without shards.
        state: one of :data:`STATES`.
        images: number of its images; None where it isn't known.
        done, failed: numbers of images.
        images_per_second: of a running one, where it is known.
        last_sign_of_life: seconds since 1970; of one that is dead, where it left a lease.
        reason: why it failed or can't be read, in one line.
        host, job: of the process that runs it, or did last.
        content: of its manifest.
    """

    folder: Path
    shard: Shard | None
    state: str
    images: int | None = None
    done: int = 0
    failed: int = 0
    images_per_second: float | None = None
    last_sign_of_life: float | None = None
    reason: str | None = None
    host: str | None = None
    job: str | None = None
    content: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def name(self) -> str:
        return self.shard.name if self.shard else "this run"

    @property
    def run(self) -> Mapping[str, Any]:
        """The entry of its last run in the manifest; empty where there is none."""
        return _last_run(self.content)

    @property
    def left(self) -> int | None:
        """Number of images to do; None where it isn't known."""
        return None if self.images is None else max(0, self.images - self.done - self.failed)

    @property
    def log(self) -> Path | None:
        """The folder with the log of its Slurm job, where it is in its default place."""
        if self.state not in UNFINISHED or not self.job:
            return None
        output = self.folder.parents[1] if self.shard else self.folder
        path = output / "logs" / self.job.split(",")[0]  # "17_3, restart 1"
        return path if path.is_dir() else None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        sign = self.last_sign_of_life
        names = "name state images done failed left images_per_second reason host job"
        return {
            **{name: getattr(self, name) for name in names.split()},
            "last_sign_of_life": None if sign is None else utc(sign),
            "ended": None if self.state in (RUNNING, DEAD) else self.run.get("ended"),
            "folder": str(self.folder),
            "log": None if self.log is None else str(self.log),
        }


def read_part(folder: Path, shard: Shard | None, now: float) -> Part:
    """Read the record in a folder.

    Args:
        folder: of the shard, or of the run without shards.
        shard: None for a run without shards.
        now: seconds since 1970.
    """
    for _ in range(2):  # again where the run began or ended between the two files
        holder, written = _read_lease(folder)
        content, damage = read_manifest(folder)
        run = _last_run(content)
        if damage is None and (holder is not None or run.get("state") != "running"):
            break
    silent = written is not None and now - written > lease.EXPIRY_SECONDS
    state, reason = _state(run, damage, holder, silent)
    owner: Mapping[str, Any] = run
    note: Mapping[str, Any] = {}
    if holder and state in (RUNNING, DEAD):
        owner, note = holder, holder.get("note") or {}
    counts = _counts(note or content.get("counts") or {}, state)
    if state == DONE and counts.get("failed"):
        state = WITH_FAILURES
    rate = None
    if state == RUNNING and note.get("extracted") and note["seconds"]:
        rate = note["extracted"] / note["seconds"]
    return Part(
        folder,
        shard,
        state,
        **counts,
        images_per_second=rate,
        last_sign_of_life=written if state == DEAD else None,
        reason=reason,
        host=owner.get("host"),
        job=owner.get("job"),
        content=content,
    )


def _last_run(content: Mapping[str, Any]) -> Mapping[str, Any]:
    return (content.get("runs") or [{}])[-1]


def utc(seconds: float) -> str:
    """Seconds since 1970 as ISO 8601 in UTC."""
    moment = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
    return moment.isoformat(timespec="seconds")


def _read_lease(folder: Path) -> tuple[Mapping[str, Any] | None, float | None]:
    """What the lease says, {} while it is being written, and when it was written; else None."""
    path = folder / LEASE_NAME
    try:
        return lease.read(path), path.stat().st_mtime
    except OSError:
        return None, None


def _state(
    run: Mapping[str, Any], damage: str | None, holder: Mapping[str, Any] | None, silent: bool
) -> tuple[str, str | None]:
    """The state, and the reason of a failure or damage.

    Args:
        run: the manifest's entry of the last run.
        damage: why the manifest can't be read.
        holder: what the lease says, if there is one.
        silent: the lease's last sign of life has expired.
    """
    alive = False if holder is None else lives(holder)
    if alive or (alive is None and not silent):
        return RUNNING, None
    if damage is not None:
        return DAMAGED, damage
    # A lease that was left behind means a death, unless its holder has noted its end.
    if holder is not None and any(holder.get(key) != run.get(key) for key in ("host", "pid")):
        return DEAD, None
    if not run:
        return NOT_STARTED, None
    state = _ENDED.get(run.get("state", ""), DEAD)
    return state, str(run.get("error")) if state == FAILED else None


def _counts(counts: Mapping[str, Any], state: str) -> dict[str, Any]:
    """``images``, ``done`` and ``failed`` from a manifest or a lease's note."""
    if "packed" not in counts:
        return {key: counts[key] for key in ("images", "done", "failed") if key in counts}
    if state in (RUNNING, DEAD):  # packing counts at its end: these are an earlier run's
        return {}
    done, failed = counts["packed"] + counts["there_before"], counts["failed"]
    return {"images": done + failed if state == DONE else None, "done": done, "failed": failed}
