"""What is to be done next with a run, as commands to paste into a shell."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import OutputError
from ..output.manifest import Manifest
from .part import RUNNING, UNFINISHED, WITH_FAILURES, Part
from .run import Status
from .values import look_up, strings

FINISH, RETRY, WAIT, MERGE, NOTHING = "finish", "retry", "wait", "merge", "nothing"
_LIST, _INDEX, _COUNT = "input.list", "shard.index", "shard.count"
_OVERRIDE = re.compile(r"\+{0,2}(?P<key>[^=~]+)=(?P<value>.*)", re.DOTALL)
_LONG = 4  # so many indices in a row become a range


@dataclass(frozen=True)
class Next:
    """What is to be done next.

    Attributes:
        what: FINISH the parts that neither are done nor running; else WAIT for those that run; else
            RETRY what failed; else MERGE the stores that each shard has of its own, in the same
            folder; else NOTHING.
        commands: that do so.
        unknown: the parts of which the command isn't in writing.
        remarks: on the commands, a line each.
    """

    what: str
    commands: list[str] = field(default_factory=list)
    unknown: list[Part] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Request:
    """What one command can ask for: the same of several shards, or of a run without them.

    Attributes:
        folder: where it was given.
        overrides: of the task, but for those that differ between shards.
        hydra: Hydra's own overrides.
        count: of the shards; None where no shard is named.
        as_sweep: whether it has to be a sweep, since only that gives several image lists shards
            of their own; or must not be one, for the same reason.
    """

    folder: str
    overrides: tuple[str, ...]
    hydra: tuple[str, ...]
    count: int | None
    as_sweep: bool

    def command(self, program: str, lists: Sequence[str] = (), indices: Sequence[int] = ()) -> str:
        """In a shell's words."""
        varying = [f"{_LIST}={','.join(lists)}"] if lists else []
        if self.count is not None:
            varying += [f"{_COUNT}={self.count}", f"{_INDEX}={_choice(indices)}"]
        sweep = ["-m"] if self.as_sweep else []
        return shlex.join(["python", program, *sweep, *self.overrides, *varying, *self.hydra])


def next_step(status: Status, here: str | Path, tools: str | Path) -> Next:
    """What is to be done next.

    Args:
        status: of the run.
        here: the folder that the commands will be given in.
        tools: the folder with extract.py and pack.py.
    """
    here, tools = Path(here), Path(tools)
    parts = status.of(*UNFINISHED)
    if not parts and status.of(RUNNING):
        return Next(WAIT)
    what = FINISH if parts else RETRY
    parts = parts or status.of(WITH_FAILURES)
    if not parts:
        commands = list(_merge(status, here, tools))
        return Next(MERGE if commands else NOTHING, commands)
    requests: dict[_Request, dict[str | None, list[int]]] = {}
    unknown, elsewhere = [], {}
    newest = _newest_of_runs(status)
    for part in parts:
        source = part if _is_known(part) else newest.get(_run_of(part))
        if source is None:
            unknown.append(part)
            continue
        request, image_list = _request(source)
        indices = requests.setdefault(request, {}).setdefault(image_list, [])
        indices.append(part.shard.index if part.shard else 0)
        if place := _elsewhere(source, status.folder):
            elsewhere[place] = None
    commands = []
    for request, indices_of in requests.items():
        program = _program(tools / "extract.py", Path(request.folder))
        change = [] if _same(request.folder, here) else [shlex.join(["cd", request.folder])]
        for lists, indices in _jobs(request, indices_of):
            commands.append(" && ".join([*change, request.command(program, lists, indices)]))
    remarks = [
        f"output.dir was {place} then: if that is another folder than this, change it"
        for place in elsewhere
    ]
    return Next(what, commands, unknown, remarks)


def _is_known(part: Part) -> bool:
    command = look_up(part.content, "command")
    known = strings(look_up(command, "overrides")), strings(look_up(command, "hydra"))
    is_complete = None not in known and isinstance(look_up(command, "folder"), str)
    return is_complete and not part.is_packing


def _run_of(part: Part) -> tuple[str, int] | None:
    """What the shards of one run have in common."""
    return (part.shard.source, part.shard.count) if part.shard else None


def _newest_of_runs(status: Status) -> dict[tuple[str, int] | None, Part]:
    """Of the shards of each run, the one that was asked for last."""
    return {_run_of(p): p for p in sorted(status.parts, key=lambda p: p.begun) if _is_known(p)}


def _request(part: Part) -> tuple[_Request, str | None]:
    """What the part was asked for with, and the image lists of it that are swept over."""
    command = part.content["command"]
    shard, image_list, rest = part.shard, None, []
    for override in command["overrides"]:
        match = _OVERRIDE.fullmatch(override)
        key = match["key"] if match else None
        if key == _LIST and shard and shard.source:
            image_list = match["value"]
        elif shard is None or key not in (_INDEX, _COUNT):
            rest.append(override)
    hydra = command["hydra"]
    if shard and shard.source:
        as_sweep = True
    elif _has_lists(part):
        as_sweep = False
    else:
        launched = any(o.lstrip("+").startswith("hydra/launcher=") for o in hydra)
        as_sweep = shard is not None or launched
    count = shard.count if shard and (shard.count > 1 or not shard.source) else None
    request = _Request(command["folder"], tuple(rest), tuple(hydra), count, as_sweep)
    return request, image_list


def _has_lists(part: Part) -> bool:
    configured = look_up(part.content, "configuration", "input")
    if configured is not None:
        return bool(look_up(configured, "list"))
    return any(o.lstrip("+").startswith(f"{_LIST}=") for o in part.content["command"]["overrides"])


def _jobs(
    request: _Request, indices_of: dict[str | None, list[int]]
) -> Iterator[tuple[list[str], list[int]]]:
    """Image lists and indices of each command: every list with every index."""
    if not request.as_sweep:
        (indices,) = indices_of.values()
        yield from (([], [index]) for index in indices)
        return
    lists_of: dict[tuple[int, ...], list[str]] = {}
    for image_list, indices in indices_of.items():
        lists = lists_of.setdefault(tuple(indices), [])
        lists += [] if image_list is None else [image_list]
    for indices, lists in lists_of.items():
        yield lists, list(indices)


def _choice(indices: Sequence[int]) -> str:
    """Hydra's words for several numbers in ascending order."""
    if len(indices) >= _LONG and indices[-1] - indices[0] == len(indices) - 1:
        return f"range({indices[0]},{indices[-1] + 1})"
    return ",".join(map(str, indices))


def _elsewhere(part: Part, folder: Path) -> str | None:
    """Where the command writes to, if that isn't the folder by its path."""
    place = look_up(part.content, "configuration", "output", "dir")
    if not isinstance(place, str):
        return None
    return None if _same(os.path.join(part.content["command"]["folder"], place), folder) else place


def _merge(status: Status, here: Path, tools: Path) -> Iterator[str]:
    """Commands that pack the stores that each shard has of its own."""
    stores = {}
    formats = {}
    for part in status.parts:
        listed = part.content.get("stores")
        for store in listed if isinstance(listed, list) else ():
            name, path = look_up(store, "format"), look_up(store, "path")
            if isinstance(name, str) and isinstance(path, str):
                formats[name] = None
                if part.shard and path.startswith("shards/"):
                    stores[name, look_up(store, "feature")] = None
    ended = max(part.ended for part in status.parts)
    program = _program(tools / "pack.py", here)
    for name, feature in stores:
        folder = os.path.normpath(os.path.join(status.folder, feature or ""))
        which = ["--from", name] if len(formats) > 1 else []
        if not _is_merged(folder, name, ended):
            yield shlex.join(["python", program, folder, *which, "--to", name, "--output", folder])


def _is_merged(folder: str, name: str, ended: str) -> bool:
    """Whether the shards' stores in a folder went into one of the same format, after their end."""
    with contextlib.suppress(OutputError):
        runs = Manifest(folder).content.get("runs")
        for run in runs if isinstance(runs, list) else ():
            what = [look_up(run, key) for key in ("program", "format", "state")]
            if what == ["pack", name, "finished"] and str(look_up(run, "started")) >= ended:
                return True
    return False


def _program(path: Path, folder: Path) -> str:
    """The program's path, from a folder: relative where it lies below it."""
    path, folder = os.path.realpath(path), os.path.realpath(folder)
    is_below = Path(path).is_relative_to(folder)
    return os.path.relpath(path, folder) if is_below else path


def _same(one: str | Path, other: str | Path) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)
