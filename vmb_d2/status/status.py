"""All records in an output folder. Nothing is written, and no feature is read."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Iterator, Mapping
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

FINISH, WAIT, RETRY, PACK, NOTHING = "finish", "wait", "retry", "pack", "nothing"


@dataclass(frozen=True)
class Totals:
    """Sums over several parts.

    Attributes:
        images, left: of the parts whose number of images is known.
        done, failed: of all parts.
        at_most: ``images`` and ``left`` are upper bounds.
        unknown: how many parts have an unknown number of images.
        images_per_second: of the running parts together.
        running_seconds: until the last running part ends, if each keeps its rate. One whose rate
            isn't known yet gets the mean rate of the others. None where no rate is known.
        all_seconds: until nothing is left, if the sum of the rates stays the same.
    """

    images: int
    done: int
    failed: int
    left: int
    at_most: bool
    unknown: int
    images_per_second: float
    running_seconds: float | None
    all_seconds: float | None

    @staticmethod
    def of(parts: list[Part]) -> Totals:
        left = sum(part.left or 0 for part in parts)
        unknown = sum(part.images is None for part in parts)
        running = [part for part in parts if part.state == RUNNING]
        rates = [part.images_per_second for part in running if part.images_per_second]
        running_seconds = all_seconds = None
        if rates and all(part.images is not None for part in running):
            mean = sum(rates) / len(rates)
            running_seconds = max((p.left or 0) / (p.images_per_second or mean) for p in running)
            if not unknown:
                all_seconds = max(running_seconds, left / sum(rates))
        return Totals(
            images=sum(part.images or 0 for part in parts),
            done=sum(part.done for part in parts),
            failed=sum(part.failed for part in parts),
            left=left,
            at_most=any(part.at_most for part in parts),
            unknown=unknown,
            images_per_second=sum(rates),
            running_seconds=running_seconds,
            all_seconds=all_seconds,
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
    def totals(self) -> Totals:
        return Totals.of(self.parts)

    def of(self, *states: str) -> list[Part]:
        """The parts in one of these states."""
        return [part for part in self.parts if part.state in states]

    @property
    def next_step(self) -> str:
        """What is to be done: ``finish`` (the same command again), ``wait`` for what runs,
        ``retry`` the failed images (the same command again), ``pack`` the shards' stores, or
        ``nothing``."""
        if self.of(*UNFINISHED):
            return FINISH
        if self.of(RUNNING):
            return WAIT
        if self.of(WITH_FAILURES):
            return RETRY
        return PACK if self.to_pack() else NOTHING

    def to_pack(self) -> list[dict[str, Any]]:
        """The stores of which each shard has its own, unless they were packed into one since.

        Returns arguments of :func:`vmb_d2.packing.pack` for each format and feature:
        ``sources``, ``target_format``, ``folder``, ``source_format`` (None where the shards have
        one format only).
        """
        stores = [store for part in self.parts for store in part.content.get("stores", [])]
        formats = {store["format"] for store in stores}
        own = [store for store in stores if self.is_sharded and store["path"].startswith("shards/")]
        ended = max(part.ended for part in self.parts)
        found = []
        for name, feature in dict.fromkeys((store["format"], store["feature"]) for store in own):
            folder = os.path.normpath(self.folder / (feature or ""))
            if not _is_packed(Path(folder), name, ended):
                source_format = name if len(formats) > 1 else None
                values = {"target_format": name, "folder": folder, "source_format": source_format}
                found.append({"sources": [folder], **values})
        return found

    def as_dict(self, now: float) -> dict[str, Any]:
        """Plain values for JSON. ``now`` is in seconds since 1970."""
        totals = self.totals
        counts = ("images", "done", "failed", "left", "at_most")
        return {
            "folder": str(self.folder),
            "time": utc(now),
            "complete": self.is_complete,
            "sharded": self.is_sharded,
            "states": {state: len(self.of(state)) for state in STATES},
            "images": {key: getattr(totals, key) for key in counts},
            "parts_of_unknown_size": totals.unknown,
            "images_per_second": totals.images_per_second,
            "seconds_left": {"running": totals.running_seconds, "all": totals.all_seconds},
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
    parts, notes = shards, []
    if not shards or _is_later(whole, shards):
        parts = [whole]
        if shards:
            notes.append(f"{len(shards)} shards of an earlier run are not counted")
    elif whole.state == DAMAGED:
        notes.append(f"{whole.reason}; no shard can start before it is removed")
    elif whole.state != NOT_STARTED:
        what = "packing into this folder" if whole.is_packing else "an earlier run without shards"
        notes.append(f"{what} ({whole.state}) is not counted")
    notes += [
        f"{part.name}: process {part.pid} on {part.host} exists, but gave no sign of life for "
        f"{now - part.last_sign_of_life:.0f} seconds: is it halted?"
        for part in parts
        if part.state == RUNNING and part.last_sign_of_life is not None
    ]
    return Status(folder, parts, notes)


def _is_later(whole: Part, shards: list[Part]) -> bool:
    if whole.is_packing:
        return False
    return whole.state == RUNNING or whole.begun > max(part.begun for part in shards)


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
        newest = max(known, key=lambda part: part.begun).content if known else None
        for index in range(count):
            shard = Shard(source, count, index)
            part = parts.get(index) or Part(shard.folder(output), shard, NOT_STARTED)
            if part.images is None and newest:
                part = dataclasses.replace(part, **_share(shard, newest))
            yield part


def _share(shard: Shard, content: Mapping[str, Any]) -> dict[str, Any]:
    """``images`` and ``at_most`` of a shard, by the manifest of another shard of the run."""
    batching = Batching.of_manifest(content["settings"].get("batching"))
    begin, end = shard.bounds(content["shard"]["of_images"], batching.chunk)
    options = content.get("configuration", {}).get("input")
    leaving_out = ("exclude_list", "start_index", "end_index")
    at_most = options is None or any(options.get(key) not in (None, 0) for key in leaving_out)
    return {"images": end - begin, "at_most": at_most}


def _is_packed(folder: Path, format_name: str, ended: str) -> bool:
    """Whether the shards' stores were packed into one of their format after they ended."""
    content, _ = read_manifest(folder)
    return any(
        (run.get("program"), run.get("format"), run["state"]) == ("pack", format_name, "finished")
        and run["started"] >= ended
        for run in content.get("runs", [])
    )
