"""How far a run is, with all its shards, and what is left to do.

    python tools/status.py features

It reads the records in the output folder, wherever the run is, and writes nothing.
`watch -n 30 python tools/status.py features` follows it.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from vmb_d2.output.failures import FILE_NAME
from vmb_d2.status import RUNNING, STATES, UNFINISHED, Part, Status, read_status
from vmb_d2.utils.command_line import at_home, command_line, run

EXIT_STATUS = (
    "Exit status: 0 if everything is done; 1 if not, or if images failed; 2 if there is no such "
    "folder, or no record of a run in it."
)
MOST = 10  # lines of a kind, without --all
NEXT = {
    "finish": "to finish the rest, run the same command again: what is done is skipped",
    "retry": "all is done but for the failed images; the same command again tries them again",
    "wait": "nothing to do but wait",
    "pack": "everything is done; to merge the shards' files, for programs that want one:",
    "nothing": "everything is done",
}
_CONTROLS = dict.fromkeys([*range(32), *range(127, 160)], "?")


def main(args: argparse.Namespace) -> int:
    """Returns the exit status."""
    now = time.time()
    status = read_status(args.folder, now)
    if args.json:
        content = {**status.as_dict(now), "commands": pack_commands(status)}
        print(json.dumps(content, indent=2))
    else:
        for line in lines(status, now, None if args.all else MOST):
            print(line)
    return 0 if status.is_complete else 1


def pack_commands(status: Status) -> list[str]:
    """The commands that merge the shards' stores once everything is done."""
    program = Path(__file__).with_name("pack.py")
    if program.is_relative_to(os.getcwd()):
        program = program.relative_to(os.getcwd())
    found = status.to_pack() if status.is_complete else []
    return [
        shlex.join(
            ["python", str(program), folder, "--from", name, "--to", name, "--output", folder]
        )
        for folder, name in found
    ]


def lines(status: Status, now: float, most: int | None) -> Iterator[str]:
    """The lines to print, at most ``most`` of a kind."""
    for line in (*summary(status), *unfinished(status, now, most), *failures(status, most)):
        yield line.translate(_CONTROLS)
    yield ""
    yield NEXT[status.next_step]
    if status.next_step == "finish" and any(part.job for part in status.parts):
        yield "(what waits in the cluster's queue goes on by itself, see squeue)"
    for command in pack_commands(status):
        yield f"  {command}"


def summary(status: Status) -> Iterator[str]:
    if status.is_sharded:
        states = ((len(status.of(state)), state) for state in STATES)
        yield f"{status.folder}: {plural(len(status.parts), 'shard')}"
        yield "shards  " + ", ".join(f"{count} {state}" for count, state in states if count)
    else:
        yield f"{status.folder}: {status.parts[0].state}"
    images, done = status.total("images"), status.total("done")
    share = f" ({100 * done // images} %)" if images else ""
    text = f"images  {done} of {images} done{share}, {status.total('failed')} failed, "
    text += f"{status.total('left')} to do"
    if status.unknown:
        text += f", and an unknown number in {plural(status.unknown, 'part')}"
    yield text
    if status.of(RUNNING):
        rate, left = status.total("images_per_second"), status.seconds_left
        slow = f"{1 / rate:.1f} s/image" if rate else "not known yet"
        yield f"rate    {f'{rate:.2f} images/s' if rate >= 1 else slow}"
        yield f"left    {'not known' if left is None else duration(left) + ' at this rate'}"
    yield from (f"note    {note}" for note in status.notes)


def unfinished(status: Status, now: float, most: int | None) -> Iterator[str]:
    """A table of what is neither done nor running."""
    rows = [["shard" if status.is_sharded else "run", "state", "done", "failed", "where", ""]]
    left_out = []
    for state in UNFINISHED:
        parts = status.of(state)
        rows += [row(part, now) for part in parts[:most]]
        left_out += more_than(most, len(parts), state)
    if len(rows) == 1:
        return
    yield ""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, state, done, failed, *rest in rows:
        cells = [name, state, done.rjust(widths[2]), failed.rjust(widths[3]), *rest]
        padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        yield "  ".join(padded).rstrip()
    yield from left_out


def row(part: Part, now: float) -> list[str]:
    images = "?" if part.images is None else part.images
    sign, what = part.last_sign_of_life, part.reason
    if sign is not None:
        since = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(sign))
        what = f"no sign of life since {since}, {duration(now - sign)} ago"
    elif part.state == "stopped":
        what = f"interrupted at {part.run.get('ended', '')[:16].replace('T', ' ')} UTC"
    elif part.state == "damaged":
        what = f"{part.reason}; mend or remove that file to go on"
    where = ", ".join(filter(None, [part.host, part.job and f"job {part.job}"]))
    more = "; ".join(filter(None, [what, part.log and f"log in {part.log}"]))
    return [part.name, part.state, f"{part.done} of {images}", str(part.failed), where, more]


def failures(status: Status, most: int | None) -> Iterator[str]:
    """The logs of the images that failed, with the number of these."""
    parts = [p for p in status.parts if p.failed and p.run.get("program") != "pack"]
    if parts:
        yield from ("", "failed images")
        yield from (f"  {part.folder / FILE_NAME}  {part.failed}" for part in parts[:most])
        yield from more_than(most, len(parts), "files")


def more_than(most: int | None, count: int, what: str) -> list[str]:
    """A line that says how many of ``count`` aren't listed; none where all are."""
    if most is None or count <= most:
        return []
    return [f"  # and {count - most} more {what}: --all lists them"]


def duration(seconds: float) -> str:
    """In the two largest units: ``2 h 5 min``."""
    minutes, hours, days = (int(seconds // unit) for unit in (60, 3600, 86400))
    if days >= 2:
        return f"{days} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes % 60} min"
    return f"{minutes} min" if minutes else f"{int(seconds)} s"


def plural(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    options = command_line(__doc__, EXIT_STATUS)
    options.add_argument("folder", metavar="OUTPUT_DIR", type=at_home, help="the output folder")
    options.add_argument(
        "--all", action="store_true", help="list all shards and files, not the first ten"
    )
    options.add_argument("--json", action="store_true", help="the same as one JSON object")
    return options


def program() -> int:
    """The console command. Returns the exit status."""
    return run(parser(), main)


if __name__ == "__main__":
    sys.exit(program())
