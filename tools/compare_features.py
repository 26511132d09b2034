"""Compare two feature stores of any formats, and say what probably makes them different.

    python tools/compare_features.py features released.lmdb

A and B are stores (a folder of files, an LMDB, a .tsv, a .h5) or output folders with a store in
them, or with one of each shard. docs/comparing.md explains the figures, what is judged and the
opinions.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import sys

from tqdm import tqdm

from vmb_d2.comparison import Settings, as_dict, compare, json_text, table
from vmb_d2.output.open_stores import open_reader
from vmb_d2.stores import FORMATS
from vmb_d2.stores.base import output_errors
from vmb_d2.utils.command_line import at_home, command_line, run
from vmb_d2.utils.files import write_whole

EXIT_STATUS = (
    "Exit status: 0 if the stores are the same within the tolerances; 1 if they differ; 2 if they "
    "could not be compared, with one line that says why; 130 after Ctrl-C."
)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    default = Settings()
    result = command_line(__doc__, EXIT_STATUS)
    result.add_argument("a", metavar="A", type=at_home, help="the reference")
    result.add_argument("b", metavar="B", type=at_home, help="what is held against it")
    for store in "ab":
        result.add_argument(
            f"--format-{store}",
            metavar="FORMAT",
            help=f"format of {store.upper()}, where it holds several stores: {', '.join(FORMATS)}",
        )
    result.add_argument(
        "--limit", type=int, metavar="N", help="compare N images, evenly spread over the names"
    )
    result.add_argument(
        "--iou",
        type=float,
        default=default.iou,
        help="least overlap of boxes that are matched (%(default)s)",
    )
    result.add_argument(
        "--tolerance",
        type=float,
        default=default.tolerance,
        help="the most that 99 %% of the feature errors, and of the differences in cls_prob, may "
        "reach (%(default)s)",
    )
    result.add_argument(
        "--matched",
        type=float,
        default=default.matched,
        help="least share of regions that must be matched, and of these that must have the same "
        "class (%(default)s)",
    )
    result.add_argument(
        "--common-only", action="store_true", help="images in one store only don't count"
    )
    result.add_argument(
        "--json",
        metavar="FILE",
        type=at_home,
        help="also write JSON; - prints it, and no table",
    )
    return result


def main(args: argparse.Namespace) -> int:
    """Compare, and print or write what was found. Returns the exit status."""
    settings = Settings(args.iou, args.tolerance, args.matched, args.limit, args.common_only)
    with contextlib.ExitStack() as stores:
        a = stores.enter_context(open_reader(args.a, args.format_a))
        b = stores.enter_context(open_reader(args.b, args.format_b))
        progress = functools.partial(tqdm, unit="image", disable=None, leave=False)
        content = as_dict(compare(a, b, settings, progress), a, b)
    if args.json == "-":
        print(json_text(content), end="")
        return int(not content["same"])
    print(table(content), end="")
    if args.json:
        with output_errors(args.json, "can't be written"):
            write_whole(args.json, json_text(content).encode())
    return int(not content["same"])


def program() -> int:
    """The console command. Returns the exit status."""
    return run(parser(), main)


if __name__ == "__main__":
    sys.exit(program())
