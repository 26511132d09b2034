"""How far a run is, with all its shards, and the command that finishes what is left.

    python tools/status.py features

It reads what the run has in writing in its output folder, wherever it runs, and writes nothing:
`watch -n 30 python tools/status.py features` follows it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

from vmb_d2.status import lines, next_step, read_status, report
from vmb_d2.utils.command_line import at_home, command_line, run

EXIT_STATUS = (
    "Exit status: 0 if everything is done; 1 if not, or if images failed; 2 if there is no such "
    "folder, or no record of a run in it."
)


def main(args: argparse.Namespace) -> int:
    """Returns the exit status."""
    now = time.time()
    status = read_status(args.folder, now)
    following = next_step(status, os.getcwd(), Path(__file__).parent)
    found = report(status, following, now)
    if args.json:
        print(json.dumps(found, indent=2))
    else:
        for line in lines(found, args.all):
            print(line)
    return 0 if status.is_complete else 1


def parser() -> argparse.ArgumentParser:
    """The command line."""
    options = command_line(__doc__, EXIT_STATUS)
    options.add_argument("folder", metavar="OUTPUT_DIR", type=at_home, help="the output folder")
    options.add_argument(
        "--all", action="store_true", help="list all shards, files and commands, not the first ten"
    )
    options.add_argument("--json", action="store_true", help="the same as one JSON object")
    return options


def program() -> int:
    """The console command. Returns the exit status."""
    return run(parser(), main)


if __name__ == "__main__":
    sys.exit(program())
