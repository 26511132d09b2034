"""A run's status in words: what :func:`vmb_d2.status.report` gives, at a glance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .part import DAMAGED, DEAD, RUNNING, STOPPED, UNFINISHED
from .remaining import FINISH, MERGE, NOTHING, RETRY, WAIT

MOST = 10  # lines of a kind, unless all are wanted
_CONTROLS = dict.fromkeys([*range(32), *range(127, 160)], "?")
_NEXT = {
    FINISH: "to finish the rest:",
    RETRY: "all is done but for the failed images; to try them again:",
    WAIT: "nothing to do but wait",
    MERGE: "everything is done; to merge the shards' files, for programs that want one:",
    NOTHING: "everything is done",
}


def lines(report: Mapping[str, Any], everything: bool = False) -> Iterator[str]:
    """The lines to print.

    Args:
        report: from :func:`vmb_d2.status.report`.
        everything: list all there is of a kind, and not the first ten only.
    """
    most = None if everything else MOST
    for line in (*_summary(report), *_unfinished(report, most), *_failures(report, most)):
        yield line.translate(_CONTROLS)
    yield ""
    yield from _next(report, most)


def duration(seconds: float) -> str:
    """In the two largest units: ``2 h 5 min``."""
    minutes, hours, days = (int(seconds // unit) for unit in (60, 3600, 86400))
    if days >= 2:
        return f"{days} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes % 60} min"
    return f"{minutes} min" if minutes else f"{int(seconds)} s"


def _summary(report: Mapping[str, Any]) -> Iterator[str]:
    states = {state: count for state, count in report["states"].items() if count}
    running = report["states"][RUNNING]
    if report["sharded"]:
        lists = report["lists"]
        of = f" of {_plural(lists, 'list')}, as far as they have begun" if lists else ""
        yield f"{report['folder']}: {_plural(len(report['parts']), 'shard')}{of}"
        yield "shards  " + ", ".join(f"{count} {state}" for state, count in states.items())
    else:
        yield f"{report['folder']}: {next(iter(states))}"
    yield f"images  {_images(report)}"
    if running:
        yield f"rate    {_rate(report['images_per_second'])}"
        yield f"left    {_left(report)}"
    if report["aside"]:
        yield f"besides {report['aside']} (not counted)"
    for problem in report["problems"]:
        yield f"note    {problem}"


def _images(report: Mapping[str, Any]) -> str:
    images, unknown = report["images"], report["parts_of_unknown_size"]
    if unknown == len(report["parts"]):
        return f"{images['done']} done, {images['failed']} failed; of how many isn't in writing"
    total, bound = images["images"], "at most " if images["at_most"] else ""
    share = f" ({100 * images['done'] // total} %)" if total else ""
    text = f"{images['done']} of {bound}{total} done{share}, {images['failed']} failed, "
    text += f"{bound}{images['left']} to do"
    if unknown:
        text += f", and those of {_plural(unknown, 'shard')}, whose number isn't in writing"
    return text


def _rate(rate: float) -> str:
    if not rate:
        return "not known yet"
    return f"{rate:.2f} images/s" if rate >= 1 else f"{1 / rate:.1f} s/image"


def _left(report: Mapping[str, Any]) -> str:
    running, every = report["seconds_left"]["running"], report["seconds_left"]["all"]
    if running is None:
        return "not known yet"
    stays = "if the rate stays as it is"
    if len(report["parts"]) == 1:
        return f"{duration(running)}, {stays}"
    whole = "" if every is None else f", {duration(every)} for all"
    return f"{duration(running)} for what runs{whole}, {stays}"


def _unfinished(report: Mapping[str, Any], most: int | None) -> Iterator[str]:
    """A table of what neither is done nor running."""
    rows = []
    for state in UNFINISHED:
        parts = [part for part in report["parts"] if part["state"] == state]
        rows += [_row(part) for part in parts[:most]]
        rows += _more(len(parts), most, state)
    if rows:
        head = ["shard" if report["sharded"] else "run", "state", "done", "failed", "where", ""]
        yield ""
        yield from _aligned([head, *rows], right={2, 3})


def _row(part: Mapping[str, Any]) -> list[str]:
    bound = "at most " if part["at_most"] else ""
    total = "?" if part["images"] is None else f"{bound}{part['images']}"
    job = f"job {part['job']}" if part["job"] else ""
    what = part["reason"] or ""
    if part["state"] == DEAD and part["last_sign_of_life"]:
        since, ago = _time(part["last_sign_of_life"]), duration(part["seconds_since"])
        what = f"no sign of life since {since}, {ago} ago"
    elif part["state"] == STOPPED and part["ended"]:
        what = f"interrupted at {_time(part['ended'])}"
    elif part["state"] == DAMAGED:
        what += "; mend or remove that file to go on"
    log = f"log in {part['log']}" if part["log"] else ""
    return [
        part["name"],
        part["state"],
        f"{part['done']} of {total}",
        str(part["failed"]),
        ", ".join(filter(None, [str(part["host"] or ""), job])),
        "; ".join(filter(None, [what, log])),
    ]


def _failures(report: Mapping[str, Any], most: int | None) -> Iterator[str]:
    files = report["failures"]
    if not files:
        return
    yield ""
    yield "failed images"
    rows = []
    for file in files[:most]:
        stages = ", ".join(f"{count} {stage}" for stage, count in file["stages"].items())
        rows.append([f"  {file['path']}", str(file["images"]), f"({stages})" if stages else ""])
    yield from _aligned([*rows, *_more(len(files), most, "files")], right={1})


def _next(report: Mapping[str, Any], most: int | None) -> Iterator[str]:
    following = report["next"]
    commands, unknown = following["commands"], following["command_unknown"]
    waiting = any(part["job"] for part in report["parts"]) and following["what"] == FINISH
    yield _NEXT[following["what"]]
    if waiting:
        yield "  # less what waits in the cluster's queue, which goes on by itself: see squeue"
    for remark in following["remarks"]:
        yield f"  # {remark}".translate(_CONTROLS)
    for command in commands[:most]:
        yield f"  {command}"
    yield from _more(len(commands), most, "commands")
    if unknown:
        which = f"{_plural(len(unknown), 'shard')}: " if report["sharded"] else ""
        yield f"  {which}give the same command again as before; it isn't in writing"


def _more(count: int, most: int | None, what: str) -> list[str]:
    """The line that says how many aren't listed, where it needs one."""
    is_cut = most is not None and count > most
    return [f"  # and {count - most} more {what}: --all lists them"] if is_cut else []


def _aligned(rows: Sequence[Sequence[str] | str], right: set[int]) -> list[str]:
    """The rows in columns, of which some are aligned to the right. Text stays as it is."""
    cells = [row for row in rows if not isinstance(row, str)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]

    def line(row: Sequence[str]) -> str:
        padded = (
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        return "  ".join(padded).rstrip()

    return [row if isinstance(row, str) else line(row) for row in rows]


def _plural(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def _time(utc: str) -> str:
    return utc[:16].replace("T", " ") + " UTC"
