"""What x152 should reach on an H100 or H200, and the stage that it falls short by."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
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
    speed = results.get("speed", {})
    return [
        *_of_network(speed),
        *_of_whole(speed),
        *_of_original(speed),
        *_of_selection(results.get("selection", {})),
    ]


def shortfalls(results: Mapping[str, Cases]) -> list[str]:
    """A line for each goal that was measured and isn't met."""
    return [
        f"below the goal for {' and '.join(GPUS)}: {o.goal}: {o.figure:.3g} ({o.target})"
        + (f"; {o.cost}" if o.cost else "")
        for o in outcomes(results)
        if o.figure is not None and not o.met
    ]


def remarks(step: str, on_gpu: bool) -> Callable[[Cases], list[str]]:
    """What tells the shortfalls of a step's results; on a CPU there are none."""
    return lambda cases: shortfalls({step: cases}) if on_gpu else []


def _of_network(speed: Cases) -> Iterator[Outcome]:
    for precision, least in NETWORK_RATES.items():
        own = _configuration(speed, precision)
        rate = own["network"]["images_per_second"] if own else None
        goal = f"{MODEL} {precision}, network alone, images/s"
        cost = _cost(own["stages"], _NETWORK) if own else ""
        yield Outcome(goal, f"at least {least:g}", rate, _reaches(rate, least), cost)


def _of_whole(speed: Cases) -> Iterator[Outcome]:
    for precision in NETWORK_RATES:
        own, share, cost = _configuration(speed, precision), None, ""
        if own:
            rates = (own[part]["images_per_second"] for part in ("end_to_end", "network"))
            whole, network = rates
            share = whole / network
            cost = _cost(own["stages"], [s for s in own["stages"] if s not in _NETWORK])
        goal = f"{MODEL} {precision}, end to end, share of the network's rate"
        yield Outcome(goal, f"at least {END_TO_END:g}", share, _reaches(share, END_TO_END), cost)


def _of_original(speed: Cases) -> Iterator[Outcome]:
    loop = speed.get(f"{MODEL} original", {}).get("original")
    for precision in NETWORK_RATES:
        own, ratio = _configuration(speed, precision), None
        if own and loop:
            ratio = own["end_to_end"]["images_per_second"] / loop["images_per_second"]
        goal = f"{MODEL} {precision}, end to end, times the original's loop in fp32"
        cost = _cost(own["stages"], list(own["stages"])) if own else ""
        target = f"at least {TIMES_ORIGINAL:g}"
        yield Outcome(goal, target, ratio, _reaches(ratio, TIMES_ORIGINAL), cost)


def _of_selection(selection: Cases) -> Iterator[Outcome]:
    for kind in ("peaked", "flat", "equal"):
        took = selection.get(kind, {}).get("milliseconds", {}).get("1")
        met = took is not None and took <= SELECTION
        yield Outcome(f"selection, {kind} scores, ms", f"at most {SELECTION:g}", took, met, "")


def _configuration(speed: Cases, precision: str) -> Mapping[str, Any] | None:
    return speed.get(f"{MODEL} {precision}", {}).get("configuration")


def _reaches(figure: float | None, least: float) -> bool:
    return figure is not None and figure >= least


def _cost(stages: Mapping[str, Any], names: Sequence[str]) -> str:
    """The times of some stages, the longest first."""
    times = {name: 1000 * stages[name]["seconds"]["median"] for name in names}
    longest = sorted(times, key=times.__getitem__, reverse=True)[:3]
    return "ms an image: " + ", ".join(f"{name} {times[name]:.2f}" for name in longest)
