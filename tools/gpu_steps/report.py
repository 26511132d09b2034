"""The results of `make gpu` as a page and a chart."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vmb_d2.errors import ConfigError

from . import STEPS, sections
from .chart import write_chart
from .goals import GPUS, outcomes
from .sections import number, section

Results = Mapping[str, Mapping[str, Any]]  # the files of the steps

_ON_CPU = (
    "**Made on a CPU, with small models: `make gpu DEVICE=cpu`. Nothing on this page was measured "
    "on a GPU.** It shows that the steps work, and what the page will look like; its rates say "
    "nothing about full-size models."
)


def read_results(folder: Path) -> dict[str, dict[str, Any]]:
    """The files of all steps, by the steps' names."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def write_report(results: Results, path: Path) -> None:
    """Write the page, and the chart beside it as a PNG of the same name.

    Raises ConfigError where there are no results, or the files can't be written.
    """
    if not results:
        raise ConfigError("there are no results: `make gpu` makes them")
    rates = chart_rates(results.get("speed", {}).get("cases", {}))
    chart = path.with_suffix(".png")
    try:
        if rates:
            machine = results["speed"]["machine"]
            write_chart(chart, f"End to end, {machine['device_name']}", rates)
        path.write_text(page(results, chart.name if rates else None))
    except OSError as error:
        raise ConfigError(f"{path}: can't be written: {error.strerror or error}") from error


def chart_rates(speed: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Images a second end to end: model -> precision or ``"original"`` -> rate."""
    rates: dict[str, dict[str, float]] = {}
    for case in speed.values():
        if "configuration" in case:
            rate = case["configuration"]["end_to_end"]["images_per_second"]
            rates.setdefault(case["model"], {})[case["precision"]] = rate
        elif "original" in case:
            rates.setdefault(case["model"], {})["original"] = case["original"]["images_per_second"]
    return rates


def page(results: Results, chart: str | None) -> str:
    """The page in Markdown.

    Args:
        results: of the steps that were made.
        chart: the name of the chart's file; None for none.
    """
    cases = {name: results.get(name, {}).get("cases", {}) for name in STEPS}
    parts = [
        _head(results),
        _goals({} if _is_cpu(results) else cases),
        sections.goldens(cases["parity"]),
        sections.batches(cases["parity"]),
        sections.rates(cases["speed"], chart),
        sections.stages(cases["speed"]),
        sections.batch_sizes(cases["speed"]),
        sections.precision(cases["precision"]),
        sections.cudnn(cases["kernels"]),
        sections.memory_formats(cases["kernels"]),
        sections.selection(cases["selection"]),
        sections.tests(cases["tests"]),
        _missing(results),
    ]
    return "\n\n".join(filter(None, map("\n".join, parts))) + "\n"


def _is_cpu(results: Results) -> bool:
    return next(iter(results.values()))["machine"]["device"] == "cpu"


def _head(results: Results) -> Iterator[str]:
    machine = next(iter(results.values()))["machine"]
    yield "# What `make gpu` measures" if _is_cpu(results) else "# Measured on a GPU"
    yield ""
    if _is_cpu(results):
        yield _ON_CPU
        yield ""
    versions = ", ".join(f"{name} {v}" for name, v in machine["versions"].items() if v)
    yield (
        f"{machine['device']}: {machine['device_name']}; processor {machine['processor']}, "
        f"{machine['cores']} cores, load {machine['load_average']} before; {versions}; "
        f"{machine['date']}. Synthetic weights. "
        "`make gpu-report` writes this page; [performance.md](performance.md) explains the figures."
    )


def _goals(cases: Results) -> Iterator[str]:
    rows = [
        (o.goal, o.target, number(o.figure), _verdict(o.figure, o.met), "" if o.met else o.cost)
        for o in outcomes(cases)
    ]
    head = ("goal", "target", "figure", "met", "what costs most")
    return section("## Goals", head, rows, f"For an {' or '.join(GPUS)}.")


def _verdict(figure: float | None, met: bool) -> str:
    if figure is None:
        return "not measured"
    return "yes" if met else "no"


def _missing(results: Results) -> Iterator[str]:
    lines = [
        *(
            f"- {name}: {case}: {result['error']}"
            for name, step in results.items()
            for case, result in step["cases"].items()
            if "error" in result
        ),
        *(
            f"- {name}, for want of time: {', '.join(step['left_out'])}"
            for name, step in results.items()
            if step["left_out"]
        ),
        *(f"- {name}: not run" for name in STEPS if name not in results),
    ]
    if lines:
        yield from ("## What is missing", "", *lines)
