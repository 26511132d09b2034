"""What the programs with plain arguments in this folder share: one-line errors, exit statuses."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable
from typing import TextIO

import environment  # noqa: F401  (before anything that has to be installed)

from vmb_d2.errors import ConfigError, VMBError


def at_home(path: str) -> str:
    """``path`` with the home folder in the place of ``~`` or ``~user``, which no folder is named.

    Raises ConfigError where there is no such user, unless a file has that name.
    """
    expanded = os.path.expanduser(path)
    if expanded.startswith("~") and not os.path.lexists(expanded):
        raise ConfigError(f"{path}: there is no such user; what has that name is ./{path}")
    return expanded


def command_line(description: str, exit_status: str) -> argparse.ArgumentParser:
    """A parser, to be given its arguments, whose help shows both texts as they are."""
    return argparse.ArgumentParser(
        description=description,
        epilog=exit_status,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def run(
    parser: argparse.ArgumentParser,
    function: Callable[[argparse.Namespace], int],
    log: TextIO | None = None,
) -> None:
    """Call ``function`` with the parsed arguments, and exit with the status that it returns.

    An error that the user can mend is one line on stderr and exit status 2, Ctrl-C is 130. What is
    logged goes to ``log``; None for stdout.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=log or sys.stdout)
    for stream in (sys.stdout, sys.stderr):  # file names need not be text
        stream.reconfigure(errors="backslashreplace")
    try:
        status = function(parser.parse_args())
    except VMBError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = 130
    sys.exit(status)
