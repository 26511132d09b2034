"""All that an output folder has in writing. Nothing is written, and no feature is looked at."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..data.batching import Batching
from ..errors import OutputError
from ..output.shards import Shard, shards_in
from .part import DAMAGED, DONE, NOT_STARTED, RUNNING, Part, read_part
from .totals import Totals
from .values import look_up, whole_number


@dataclass(frozen=True)
class Status:
    """How far an output folder's run is.

    Attributes:
        folder: the output folder.
        parts: its shards, also those that haven't begun; or the one run without shards.
        aside: what the folder has besides, in a line; it isn't counted.
        problems: what else has to be known, a line each.
    """

    folder: Path
    parts: list[Part]
    aside: str | None = None
    problems: list[str] = field(default_factory=list)

    @property
    def is_sharded(self) -> bool:
        return self.parts[0].shard is not None

    @property
    def is_complete(self) -> bool:
        """Whether every image is there."""
        return all(part.state == DONE for part in self.parts)

    def of(self, *states: str) -> list[Part]:
        """The parts in one of these states."""
        return [part for part in self.parts if part.state in states]

    @property
    def totals(self) -> Totals:
        return Totals.of(self.parts)


def read_status(folder: str | Path, now: float | None = None) -> Status:
    """What is in writing in an output folder.

    A folder can have both, shards and a run without them. Then it is about what began last.

    Args:
        folder: the output folder.
        now: seconds since 1970; None: by this machine's clock.

    Raises OutputError where there is no such folder, or no record in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise OutputError(f"{folder}: no such folder")
    now = time.time() if now is None else now
    whole = read_part(folder, None, now)
    shards = list(_read_shards(folder, now))
    parts, aside, problems = shards, None, []
    if not shards and whole.state == NOT_STARTED:
        raise OutputError(f"{folder}: no record of a run in it")
    if not shards or _is_later(whole, shards):
        parts = [whole]
        aside = f"{len(shards)} shards of an earlier run" if shards else None
    elif whole.state == DAMAGED:
        problems.append(f"{whole.reason}; no shard can start before it is removed")
    elif whole.state != NOT_STARTED:
        what = "packing into this folder" if whole.is_packing else "an earlier run without shards"
        aside = f"{what}, {whole.state}"
    for part in parts:
        if part.state == RUNNING and part.last_sign is not None:
            problems.append(
                f"{part.name}: process {part.pid} on {part.host} is there, but gave no sign of "
                f"life for {now - part.last_sign:.0f} seconds: is it halted?"
            )
    return Status(folder, parts, aside, problems)


def _is_later(whole: Part, shards: list[Part]) -> bool:
    if whole.is_packing:
        return False
    return whole.state == RUNNING or whole.begun > max(part.begun for part in shards)


def _read_shards(output: Path, now: float) -> Iterator[Part]:
    """All shards of the runs of which at least one shard has begun."""
    runs: dict[tuple[str, int], dict[int, Part]] = {}
    for shard in shards_in(output):
        parts = runs.setdefault((shard.source, shard.count), {})
        parts[shard.index] = read_part(shard.folder(output), shard, now)
    for (source, count), parts in runs.items():
        if all(part.state == NOT_STARTED for part in parts.values()):
            continue  # empty folders, as a run that was refused may leave behind
        known = [part for part in parts.values() if look_up(part.content, "shard")]
        newest = max(known, key=lambda part: part.begun).content if known else {}
        for index in range(count):
            shard = Shard(source, count, index)
            part = parts.get(index) or Part(shard.folder(output), shard, NOT_STARTED)
            yield part if part.images is not None else _with_share(part, newest)


def _with_share(part: Part, content: Mapping[str, Any]) -> Part:
    """With its number of images, as it follows from another shard's manifest."""
    total = whole_number(look_up(content, "shard", "of_images"))
    if total is None:
        return part
    batching = Batching.of_manifest(look_up(content, "settings", "batching"))
    begin, end = part.shard.bounds(total, batching.chunk)
    options = look_up(content, "configuration", "input")
    leaving_out = ("exclude_list", "start_index", "end_index")
    at_most = options is None or any(look_up(options, key) not in (None, 0) for key in leaving_out)
    return dataclasses.replace(part, images=end - begin, at_most=at_most)
