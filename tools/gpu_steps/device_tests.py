"""The step "tests": the test suite's tests of a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from .steps import Result, Step

ROOT = Path(__file__).parents[2]
FOLDERS = (ROOT / "tests" / "gpu", ROOT / "tests" / "modeling")  # of all tests of a GPU
MOST_SECONDS = 300


def device_tests_step(device: torch.device) -> Step:
    """One case: what ``pytest -m gpu`` finds. On the CPU, GPUs are hidden from it."""
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if device.type == "cpu" else {}
    return Step("tests", {"pytest -m gpu": lambda: run_tests(FOLDERS, {**os.environ, **hidden})})


def run_tests(folders: Sequence[Path], environment: Mapping[str, str]) -> Result:
    """Run them in a process of their own. What is skipped is no failure.

    Raises RuntimeError where pytest itself fails.
    """
    with tempfile.TemporaryDirectory() as temporary:
        report = Path(temporary) / "report.xml"
        options = ["-m", "gpu", "-p", "no:cacheprovider", f"--junitxml={report}"]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *options, *map(str, folders)],
            cwd=ROOT,
            env=environment,
            timeout=MOST_SECONDS,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode not in (0, 1):
            raise RuntimeError(f"pytest ended with {done.returncode}: {done.stdout[-500:]}")
        tests = [_outcome(case) for case in ElementTree.parse(report).iter("testcase")]
    counts = {"passed": 0, "failed": 0, "skipped": 0, **Counter(t["outcome"] for t in tests)}
    summary = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    if reasons := sorted({test["text"] for test in tests if test["outcome"] == "skipped"}):
        summary += f" ({'; '.join(reasons)})"
    return {"summary": summary, "met": not counts["failed"], **counts, "tests": tests}


def _outcome(case: ElementTree.Element) -> dict[str, str]:
    for tag, outcome in (("skipped", "skipped"), ("failure", "failed"), ("error", "failed")):
        if (element := case.find(tag)) is not None:
            text = element.get("message", "").split("\n")[0]
            return {"test": case.get("name", ""), "outcome": outcome, "text": text}
    return {"test": case.get("name", ""), "outcome": "passed", "text": ""}
