"""A measurement in steps, of which each result is kept at once and each is made once.

A step is a number of cases, in the order of their worth. Its results are one JSON file:

    {"step": ..., "machine": {...}, "cases": {case: result}, "left_out": [case, ...]}
"""

from __future__ import annotations

import gc
import json
import logging
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vmb_d2.errors import ConfigError, first_line
from vmb_d2.utils.files import write_whole

Result = dict[str, Any]
Case = Callable[[], Result]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Step:
    """Some cases.

    Attributes:
        name: of the file, too.
        cases: what makes the result of each, by its name. A result has a ``summary``, which is
            printed, and may have ``met``: whether it is as it should be.
        weight: the share of the time, in proportion to the other steps' weights.
    """

    name: str
    cases: Mapping[str, Case]
    weight: float = 1.0


def run_steps(
    steps: Sequence[Step],
    folder: Path,
    machine: Mapping[str, Any],
    limit: float,
    now: Callable[[], float] = time.monotonic,
) -> bool:
    """Make the results that aren't there, and those that are an error.

    Each step may begin cases until its share of the time and that of the steps before it is over.

    Args:
        steps: in the order of their worth.
        folder: of the results.
        machine: as ``describe_machine`` gives it.
        limit: seconds.
        now: the time in seconds.

    Returns:
        Whether no result is an error or other than it should be.

    Raises:
        ConfigError: a result that is there is of another device.
    """
    begin, shares, good = now(), 0.0, True
    contents = {step.name: _content(folder, step, machine) for step in steps}
    weights = {step.name: step.weight for step in steps if _pending(step, contents[step.name])}
    for step in steps:
        content = contents[step.name]
        if step.name not in weights:
            logger.info("%s: is there, %d cases", step.name, len(step.cases))
        else:
            shares += step.weight / sum(weights.values())
            _run(step, content, folder, lambda end=begin + limit * shares: now() < end, now)
        good &= all(is_good(result) for result in content["cases"].values())
    return good


def is_good(result: Result) -> bool:
    """Whether it is no error, and as it should be."""
    return "error" not in result and result.get("met", True)


def _content(folder: Path, step: Step, machine: Mapping[str, Any]) -> dict[str, Any]:
    path = folder / f"{step.name}.json"
    if not path.exists():
        return {"step": step.name, "machine": dict(machine), "cases": {}, "left_out": []}
    content = json.loads(path.read_text())
    before, here = content["machine"]["device_name"], machine["device_name"]
    if before != here:
        raise ConfigError(
            f"has {path.name} of {before}, not of {here}", field="output", value=folder
        )
    return content


def _pending(step: Step, content: Mapping[str, Any]) -> list[str]:
    done = content["cases"]
    return [name for name in step.cases if name not in done or "error" in done[name]]


def _run(
    step: Step,
    content: dict[str, Any],
    folder: Path,
    has_time: Callable[[], bool],
    now: Callable[[], float],
) -> None:
    for name in _pending(step, content):
        if has_time():
            begin = now()
            result = _result(step.cases[name])
            result["seconds"] = round(now() - begin, 1)
            content["cases"][name] = result
            text = result.get("summary") or f"ERROR: {result['error']}"
            logger.info("%s: %s: %s (%s s)", step.name, name, text, result["seconds"])
        content["left_out"] = [case for case in step.cases if case not in content["cases"]]
        text = json.dumps(content, indent=2) + "\n"
        write_whole(folder / f"{step.name}.json", text.encode())
    if content["left_out"]:
        logger.info("%s: no time for: %s", step.name, ", ".join(content["left_out"]))


def _result(case: Case) -> Result:
    try:
        return case()
    except Exception as error:  # the other cases can be measured all the same
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {first_line(error)}"}
    finally:
        if torch.cuda.is_available():  # all of its memory for the next case
            gc.collect()
            torch.cuda.empty_cache()
