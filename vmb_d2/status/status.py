"""All records in an output folder. Nothing is written, and no feature is read."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..data.batching import Batching
from ..errors import OutputError
from ..output.manifest import read_manifest
from ..output.shards import Shard, shards_in
from .part import (
    DAMAGED,
    DONE,
    NOT_STARTED,
    RUNNING,
    STATES,
    UNFINISHED,
    WITH_FAILURES,
    Part,
    read_part,
    utc,
)


@dataclass(frozen=True)
class Status:
    """How far an output folder's run is.

    Attributes:
        folder: the output folder.
        parts: its shards, those that haven't begun too; or the one run without shards.
        notes: what else has to be known, one line each.
    """

    folder: Path
    parts: list[Part]
    notes: list[str] = field(default_factory=list)

    @property
    def is_sharded(self) -> bool:
        return self.parts[0].shard is not None

    @property
    def is_complete(self) -> bool:
        """Whether every image is there."""
        return all(part.state == DONE for part in self.parts)

    @property
    def unknown(self) -> int:
        """How many parts have an unknown number of images."""
        return sum(part.images is None for part in self.parts)

    @property
    def seconds_left(self) -> float | None:
        """Until nothing is left at this rate; None where it, or a number of images, isn't known."""
        rate = self.total("images_per_second")
        return self.total("left") / rate if rate and not self.unknown else None

    def total(self, attribute: str) -> float:
        """The sum of ``images``, ``done``, ``failed``, ``left`` or ``images_per_second`` of the
        parts, of which unknown ones count as 0."""
        return sum(getattr(part, attribute) or 0 for part in self.parts)

    def of(self, *states: str) -> list[Part]:
        """The parts in one of these states."""
        return [part for part in self.parts if part.state in states]

    @property
    def next_step(self) -> str:
        """What is to be done: ``finish`` (the same command again), ``wait`` for what runs,
        ``retry`` the failed images (the same command again), ``pack`` the shards' stores, or
        ``nothing``."""
        if self.of(*UNFINISHED):
            return "finish"
        if self.of(RUNNING):
            return "wait"
        if self.of(WITH_FAILURES):
            return "retry"
        return "pack" if self.to_pack() else "nothing"

    def to_pack(self) -> list[tuple[str, str]]:
        """(folder, format) of the stores of which each shard has its own, unless they were packed
        into one since."""
        stores = [store for part in self.parts for store in part.content.get("stores", [])]
        own = [store for store in stores if self.is_sharded and store["path"].startswith("shards/")]
        ended = max(part.run.get("ended", "") for part in self.parts)
        found = {
            (os.path.normpath(self.folder / (store["feature"] or "")), store["format"]): None
            for store in own
        }
        return [packing for packing in found if not _is_packed(*packing, ended)]

    def as_dict(self, now: float) -> dict[str, Any]:
        """Plain values for JSON. ``now`` is in seconds since 1970."""
        return {
            "folder": str(self.folder),
            "time": utc(now),
            "complete": self.is_complete,
            "sharded": self.is_sharded,
            "states": {state: len(self.of(state)) for state in STATES},
            "images": {key: self.total(key) for key in ("images", "done", "failed", "left")},
            "parts_of_unknown_size": self.unknown,
            "images_per_second": self.total("images_per_second"),
            "seconds_left": self.seconds_left,
            "parts": [part.as_dict() for part in self.parts],
            "next": self.next_step,
            "notes": self.notes,
        }


def read_status(folder: str | Path, now: float | None = None) -> Status:
    """Read all records in an output folder.

    Where it has shards and a run without shards, the status is that of what began last.

    Args:
        folder: the output folder.
        now: seconds since 1970; None: this machine's clock.

    Raises:
        OutputError: there is no such folder, or no record in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise OutputError(f"{folder}: no such folder")
    now = time.time() if now is None else now
    whole = read_part(folder, None, now)
    shards = list(_read_shards(folder, now))
    if not shards and whole.state == NOT_STARTED:
        raise OutputError(f"{folder}: no record of a run in it")
    if not shards or _is_later(whole, shards):
        return Status(folder, [whole])
    notes = []
    if whole.state == DAMAGED:
        notes.append(f"{whole.reason}; no shard can start before it is removed")
    return Status(folder, shards, notes)


def _is_later(whole: Part, shards: list[Part]) -> bool:
    """Whether the run without shards began after them. Packing them doesn't count."""
    if whole.run.get("program") == "pack":
        return False
    return whole.state == RUNNING or _begun(whole) > max(map(_begun, shards))


def _begun(part: Part) -> str:
    return part.run.get("started", "")


def _read_shards(output: Path, now: float) -> Iterator[Part]:
    """All shards of each run of which at least one shard has begun."""
    runs: dict[tuple[str, int], dict[int, Part]] = {}
    for shard in shards_in(output):
        parts = runs.setdefault((shard.source, shard.count), {})
        parts[shard.index] = read_part(shard.folder(output), shard, now)
    for (source, count), parts in runs.items():
        if all(part.state == NOT_STARTED for part in parts.values()):
            continue  # empty folders, which a run that was refused may leave behind
        known = [part for part in parts.values() if "shard" in part.content]
        newest = max(known, key=_begun).content if known else None
        for index in range(count):
            shard = Shard(source, count, index)
            part = parts.get(index) or Part(shard.folder(output), shard, NOT_STARTED)
            if part.images is None and newest:
                batching = Batching.of_manifest(newest["settings"].get("batching"))
                begin, end = shard.bounds(newest["shard"]["of_images"], batching.chunk)
                part = dataclasses.replace(part, images=end - begin)
            yield part


def _is_packed(folder: str, format_name: str, ended: str) -> bool:
    """Whether the shards' stores were packed into one of their format after they ended."""
    content, _ = read_manifest(folder)
    return any(
        (run.get("program"), run.get("format"), run["state"]) == ("pack", format_name, "finished")
        and run["started"] >= ended
        for run in content.get("runs", [])
    )
