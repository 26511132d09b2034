"""What the Hydra apps in this folder share: one-line errors and exit statuses."""

from __future__ import annotations

import functools
import logging
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import arguments
import local_gpus
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)

from vmb_d2.errors import ConfigError, VMBError, first_line
from vmb_d2.utils import interruption

MEANING = {
    "input.dir": "a folder of images, or one image",
}

MOST_ERRORS = 20  # of a sweep's jobs, to be shown

logger = logging.getLogger("extract")

_USER_ERRORS = (VMBError, HydraException, OmegaConfBaseException)
_traceback_wanted = os.environ.get("HYDRA_FULL_ERROR") == "1"


class SomeImagesFailed(VMBError):
    """The run went to its end, but not every image was extracted."""


class JobsFailed(Exception):
    """All jobs of a sweep have ended, some of them with an error.

    Args:
        errors: (number of the job, its error, its log if it has one).
        count: how many jobs there were.
        folder: their output folder.
    """

    def __init__(
        self, errors: Sequence[tuple[int, Exception, Path | None]], count: int, folder: str
    ):
        super().__init__(
            f"{len(errors)} of {count} jobs failed; `python tools/status.py {shlex.quote(folder)}` "
            "says what is left, and the same command goes on"
        )
        self.errors = errors


def required(cfg: DictConfig, key: str) -> str:
    """The value of a mandatory option. Raises ConfigError where it isn't given."""
    value = OmegaConf.select(cfg, key)  # None where it is missing
    if not value:
        raise ConfigError(f"{key} is missing: {MEANING[key]}, given as {key}=...")
    return value


def in_sweep() -> bool:
    """Whether this is one of a multirun's jobs."""
    return HydraConfig.get().mode is RunMode.MULTIRUN


def command() -> dict[str, Any]:
    """How this job was asked for, as plain values."""
    overrides = HydraConfig.get().overrides
    hydra = [o for o in overrides.hydra if not o.startswith("hydra.mode=")]
    return {"overrides": list(overrides.task), "hydra": hydra, "folder": os.getcwd()}


def task(function: Callable[[DictConfig], None]) -> Callable[[DictConfig], None]:
    """Decorator of a Hydra app's function, under ``hydra.main``.

    Outside a multirun, an error that the user can mend ends the program here, in one line. In a
    multirun it goes on to the launcher, which has other jobs to look after, and to the job's log,
    since Hydra keeps it from there.
    """

    @functools.wraps(function)
    def wrapper(cfg: DictConfig) -> None:
        try:
            with interruption.handled():
                if in_sweep():
                    local_gpus.take_one(HydraConfig.get().job.num)
                function(cfg)
        except Exception as error:
            if in_sweep():
                _log(error)
            if in_sweep() or _traceback_wanted or not isinstance(error, _USER_ERRORS):
                raise
            _exit(error)

    return wrapper


def run(main: Callable[[], None]) -> None:
    """Run what ``hydra.main`` made, and exit.

    The exit status is 0, or 1 if some images failed, or 2 if the work could not be done, or 128
    plus the number of the signal that ended it. An error that the user can mend is one line on
    stderr; with HYDRA_FULL_ERROR=1 it is a traceback.
    """
    for stream in (sys.stdout, sys.stderr):  # file names need not be text
        stream.reconfigure(errors="backslashreplace")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises its errors instead of printing them
    # A launcher's jobs import the modules in this folder too.
    paths = [os.path.dirname(os.path.abspath(__file__)), os.environ.get("PYTHONPATH")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    local_gpus.remember()
    try:
        sys.argv[1:] = arguments.for_hydra(sys.argv[1:])
        main()
    except JobsFailed as error:
        for number, failure, log in error.errors[:MOST_ERRORS]:
            more = f"; log: {log}" if log else ""
            print(f"error: #{number}: {one_line(failure)}{more}", file=sys.stderr)
        print(error, file=sys.stderr)
        sys.exit(max(_status(failure) for _, failure, _ in error.errors))
    except _USER_ERRORS as error:
        if _traceback_wanted:
            raise
        _exit(error)
    except KeyboardInterrupt as error:
        then = "run the same command to go on"
        if job := getattr(error, "job", None):
            then = f"job {job} goes on, `scancel {job}` ends it"
        print(f"interrupted by {str(error) or 'Ctrl-C'}; {then}", file=sys.stderr)
        sys.exit(128 + getattr(error, "signum", signal.SIGINT))


def _log(error: Exception) -> None:
    """Into the log of a sweep's job, which is the terminal unless a launcher gave it another."""
    has_log = "SUBMITIT_EXECUTOR" in os.environ
    known = isinstance(error, SomeImagesFailed if has_log else _USER_ERRORS)
    logger.error("this job of the sweep failed: %s", one_line(error), exc_info=not known)


def one_line(error: BaseException) -> str:
    """The text of an error, with the key it is about and the values that are valid."""
    if isinstance(error, VMBError):
        return str(error)
    for cause in _causes(error):
        if isinstance(cause, MissingConfigException) and cause.options:
            group, _, choice = cause.missing_cfg_file.rpartition("/")
            return f"{group}={choice}: valid are {', '.join(cause.options)}"
        key = getattr(cause, "full_key", None)
        if key and isinstance(cause, MissingMandatoryValue):
            return f"{key} is missing"
        if key and isinstance(cause, (ConfigKeyError, ConfigAttributeError)):
            valid = ", ".join(str(k) for k in cause.parent_node or () if k != "hydra")
            return f"{key}: no such key; valid here are {valid}"
        if key:
            return f"{key}: {first_line(cause)}"
    if isinstance(error, OverrideParseException):
        hint = "a value with special characters needs quotes, as in \"key='a=b'\""
        if spelled := arguments.spelled(error.override):
            hint = f"type {spelled}"
        lines = [line.strip(" ^") for line in str(error).splitlines()]
        reason = ": ".join(line for line in lines if line and not line.startswith("See "))
        return f"{reason} ({hint})"
    if isinstance(error, _USER_ERRORS):
        return first_line(error)
    return f"{type(error).__name__}: {first_line(error)}"


def _exit(error: BaseException) -> None:
    print(f"error: {one_line(error)}", file=sys.stderr)
    sys.exit(_status(error))


def _status(error: BaseException) -> int:
    return 1 if isinstance(error, SomeImagesFailed) else 2


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen = set()  # a chain can end where it began
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
