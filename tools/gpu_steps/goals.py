"""What x152 should reach on an H100 or H200, and the stage that it falls short by."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

Cases = Mapping[str, Mapping[str, Any]]  # the results of a step

GPUS = ("H100", "H200")  # in their names
MODEL = "x152"
# images a second of the network alone; the roofline of 1.86 TFLOP an image: 36, 216, 431
NETWORK_RATES = {"fp32": 18.0, "tf32": 65.0, "bf16": 110.0}
END_TO_END = 0.9  # of the network's rate
TIMES_ORIGINAL = 50.0  # end to end
SELECTION = 2.0  # milliseconds an image, one at a time

_NETWORK = ("backbone", "rpn", "roi_head")


class Outcome(NamedTuple):
    """A goal and what became of it.

    Attributes:
        goal: in words.
        target: in words.
        figure: None where it wasn't measured.
        met: whether the figure reaches the target.
        cost: the stages that cost most, in words; "" where that isn't known.
    """

    goal: str
    target: str
    figure: float | None
    met: bool
    cost: str


def outcomes(results: Mapping[str, Cases]) -> list[Outcome]:
    """All goals.

    ``results``: of the steps ``speed`` and ``selection``, as far as they are there.
    """
    speed, selection = results.get("speed", {}), results.get("selection", {})
    own = (_of_precision(speed, *goal) for goal in NETWORK_RATES.items())
    return [*itertools.chain(*own), *_of_selection(selection)]


def shortfalls(results: Mapping[str, Cases]) -> list[str]:
    """A line for each goal that was measured and isn't met."""
    return [
        f"below the goal for {' and '.join(GPUS)}: {o.goal}: {o.figure:.3g} ({o.target})"
        + (f"; {o.cost}" if o.cost else "")
        for o in outcomes(results)
        if o.figure is not None and not o.met
    ]


def _of_precision(speed: Cases, precision: str, least: float) -> Iterator[Outcome]:
    """Of the network alone, end to end, and against the original's loop."""
    own = speed.get(f"{MODEL} {precision}", {}).get("configuration")
    loop = speed.get(f"{MODEL} original", {}).get("original")
    network = share = times = None
    stages = own["stages"] if own else {}
    if own:
        network, whole = (own[part]["images_per_second"] for part in ("network", "end_to_end"))
        share = whole / network
        times = whole / loop["images_per_second"] if loop else None
    others = [stage for stage in stages if stage not in _NETWORK]
    for goal, target, figure, costly in (
        ("network alone, images/s", least, network, [s for s in stages if s in _NETWORK]),
        ("end to end, share of the network's rate", END_TO_END, share, others),
        ("end to end, times the original's loop in fp32", TIMES_ORIGINAL, times, list(stages)),
    ):
        met = figure is not None and figure >= target
        cost = _cost(stages, costly)
        yield Outcome(f"{MODEL} {precision}, {goal}", f"at least {target:g}", figure, met, cost)


def _of_selection(selection: Cases) -> Iterator[Outcome]:
    for kind in ("peaked", "flat", "equal"):
        took = selection.get(kind, {}).get("milliseconds", {}).get("1")
        met = took is not None and took <= SELECTION
        yield Outcome(f"selection, {kind} scores, ms", f"at most {SELECTION:g}", took, met, "")


def _cost(stages: Mapping[str, Any], names: Sequence[str]) -> str:
    """The times of some stages, the longest first."""
    times = {name: 1000 * stages[name]["seconds"]["median"] for name in names}
    longest = sorted(times, key=times.__getitem__, reverse=True)[:3]
    text = ", ".join(f"{name} {times[name]:.2f}" for name in longest)
    return f"ms an image: {text}" if text else ""
