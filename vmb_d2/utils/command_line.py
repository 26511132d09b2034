"""What the programs share: their arguments, and how they end."""

from __future__ import annotations

import argparse
import logging
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import TextIO

from ..errors import ConfigError, VMBError

DONE, INCOMPLETE, NOT_DONE = 0, 1, 2  # exit statuses

# As Hydra's programs have it. Read here, since tools/launching.py sets it.
_wants_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"


def at_home(path: str) -> str:
    """``path`` with the home folder in place of ``~`` or ``~user`` at its beginning.

    Raises ConfigError where there is no such user, unless a file has that name.
    """
    expanded = os.path.expanduser(path)
    if expanded.startswith("~") and not os.path.lexists(expanded):
        raise ConfigError(f"{path}: there is no such user; what has that name is ./{path}")
    return expanded


def command_line(description: str | None, exit_status: str) -> argparse.ArgumentParser:
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
    names: Mapping[str, str] | None = None,
    arguments: Sequence[str] | None = None,
) -> int:
    """Call ``function`` with the parsed arguments, and return the exit status.

    Errors name the program's own options, see :func:`exit_status`.

    Args:
        parser: the options.
        function: the work.
        log: where log lines go; None for stdout.
        names: the options of parameters of the library that are named otherwise there.
        arguments: to parse; None for the program's.
    """
    flags = re.findall(r"--[\w-]+", parser.format_usage())
    options = {flag.strip("-").replace("-", "_"): flag for flag in flags}
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=log or sys.stdout)
    names = {**options, **(names or {})}
    return exit_status(
        lambda: function(parser.parse_args(arguments)),
        lambda error: error.text(names) if isinstance(error, VMBError) else None,
    )


def exit_status(
    function: Callable[[], int],
    describe: Callable[[BaseException], str | None],
    interrupted: str = "run the same command to go on",
) -> int:
    """Call ``function``, and return the exit status of the program.

    An error is one line on stderr, and exit status 2; a signal is 128 plus its number. An error
    that ``describe`` has no text for is a fault of the program, and a traceback; with
    HYDRA_FULL_ERROR=1 in the environment, all are.

    Args:
        function: the work. Returns the exit status where there is no error.
        describe: the text of an error that the user can mend; None for others.
        interrupted: what to do after a signal.
    """
    for stream in (sys.stdout, sys.stderr):  # file names need not be text
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        return function()
    except KeyboardInterrupt as error:
        print(f"interrupted by {str(error) or 'SIGINT'}; {interrupted}", file=sys.stderr)
        return 128 + getattr(error, "signum", signal.SIGINT)
    except BrokenPipeError:  # what read the output, such as head, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except Exception as error:
        text = describe(error)
        if _wants_traceback or text is None:
            traceback.print_exc()
        else:
            print(f"error: {text}", file=sys.stderr)
        return getattr(error, "exit_status", NOT_DONE)
