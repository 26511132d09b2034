"""The tables of `make gpu`'s steps in Markdown, each from the results of a step's cases."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

Cases = Mapping[str, Any]

_MIB = 1 << 20
_PARITY_NOTE = (
    "*worst*: feature vector, relative L2. The goldens are from a CPU, where VMB's NMS drops a "
    "box whose overlap equals the threshold; its GPU code keeps it, and so does this project "
    "on a GPU. Images with many equal overlaps, such as horse, can differ by that."
)


def section(
    title: str, head: Sequence[str], rows: Iterable[Sequence[str]], note: str = ""
) -> Iterator[str]:
    """The lines of a title, a table and a note; none where there are no rows."""
    rows = list(rows)
    if not rows:
        return
    yield from (title, "", f"| {' | '.join(head)} |", f"|{'---|' * len(head)}")
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', '/') for cell in row)} |"
    if note:
        yield from ("", note)


def goldens(cases: Cases) -> Iterator[str]:
    """Each model against all of its goldens."""
    rows = []
    for name, case in cases.items():
        if found := case.get("goldens"):
            sums = {k: sum(g[k] for g in found) for k in ("regions", "matched", "same_class")}
            rows.append(
                (
                    f"`{name}`",
                    f"{sum(g['met'] for g in found)} of {len(found)}",
                    f"{sums['matched']} of {sums['regions']}",
                    f"{max(g['box'] for g in found):.1e} px",
                    f"{max(g['features'] for g in found):.1e}",
                    f"{sums['same_class']} of {sums['matched']}",
                )
            )
    head = ("model", "goldens as the tests demand", "boxes within 0.01 px", "farthest", "worst")
    title = "## Parity with the originals, fp32"
    return section(title, (*head, "classes"), rows, _PARITY_NOTE)


def batches(cases: Cases) -> Iterator[str]:
    """Images in batches."""
    rows = (
        (
            _model(name)[0],
            f"{batch['batch_size']}{', shuffled' if batch['shuffled'] else ''}",
            f"{batch['matched']} of {batch['regions']}",
            f"{batch['features']:.1e}",
        )
        for name, case in cases.items()
        for batch in case.get("batches", [])
    )
    head = ("model", "batch size", "boxes within 0.01 px", "worst")
    return section("Images in batches against each image alone:", head, rows)


def rates(cases: Cases, chart: str | None) -> Iterator[str]:
    """Images a second, with the chart."""
    loops = _loops(cases)
    rows = []
    for name, case in cases.items():
        if "configuration" not in case:
            continue
        own, loop = case["configuration"], loops.get(case["model"])
        network, whole = own["network"], own["end_to_end"]["images_per_second"]
        memory = own["peak_memory_bytes"].items()
        rows.append(
            (
                *_model(name),
                str(own["batch_size"]),
                number(network["images_per_second"]),
                f"{network['share_of_peak']:.0%}",
                f"{number(whole)} ({case['images']['end_to_end']} images)",
                number(whole / loop["images_per_second"]) if loop else "-",
                ", ".join(f"{where} {size / _MIB:.0f}" for where, size in memory),
            )
        )
    head = ("model", "precision", "batch size (`auto`)", "network alone, images/s")
    more = ("share of the peak", "end to end, images/s", "times the original's loop")
    note = f"![images a second end to end, by model and precision]({chart})" if chart else ""
    return section("## Speed", (*head, *more, "most memory, MiB"), rows, note)


def stages(cases: Cases) -> Iterator[str]:
    """Times of the stages."""
    found = {_model(n): c["configuration"] for n, c in cases.items() if "configuration" in c}
    loops = {(f"`{m}`", "the original's loop"): loop for m, loop in _loops(cases).items()}
    rows, names = [], []
    for name, own in (found | loops).items():
        names = list(own["stages"])
        times = (1000 * stage["seconds"]["median"] for stage in own["stages"].values())
        rows.append((*name, *(f"{time:.2f}" for time in times)))
    return section("Stages, ms an image:", ("model", "precision", *names), rows)


def batch_sizes(cases: Cases) -> Iterator[str]:
    """Rates by batch size."""
    sweeps = {name: case["sizes"] for name, case in cases.items() if "sizes" in case}
    sizes = list(dict.fromkeys(s["batch_size"] for sweep in sweeps.values() for s in sweep))
    rows = []
    for name, sweep in sweeps.items():
        measured = {s["batch_size"]: s["network"] for s in sweep if "network" in s}
        rates = {size: number(own["images_per_second"]) for size, own in measured.items()}
        rows.append((*_model(name), *(rates.get(size, "no memory") for size in sizes)))
    head = ("model", "precision", *map(str, sizes))
    return section("Network alone, images/s by batch size:", head, rows)


def precision(cases: Cases) -> Iterator[str]:
    """The price of lower precisions."""
    rows = (
        (
            *_model(name),
            f"{c['near']:.0%}",
            f"{c['features_median']:.1e}, {c['features_worst']:.1e}",
            f"{c['same_class']:.1%}",
            f"{c['given_features_median']:.1e}, {c['given_features_worst']:.1e}",
            f"{c['given_same_class']:.1%}",
        )
        for name, c in cases.items()
        if "near" in c
    )
    head = ("model", "precision", "boxes within 2 px", "their features: median, worst", "classes")
    more = ("the same boxes given: median, worst", "classes")
    return section("## The price of lower precisions, against fp32", (*head, *more), rows)


def cudnn(cases: Cases) -> Iterator[str]:
    """cuDNN's settings."""
    rows = (
        (
            *_model(name),
            "on" if s["benchmark"] else "off",
            "on" if s["deterministic"] else "off",
            "yes" if s["equal"] else "no",
            f"{s['milliseconds']:.1f}",
        )
        for name, case in cases.items()
        for s in case.get("settings", [])
    )
    head = ("model", "precision", "`benchmark`", "`deterministic`", "equal to the bit")
    title = "## cuDNN's settings, the same photographs three times"
    return section(title, (*head, "network, ms an image"), rows)


def memory_formats(cases: Cases) -> Iterator[str]:
    """The fastest memory formats."""
    rows = (
        (
            *_model(name),
            ", ".join(f"{stage} {form}" for stage, form in case["formats"].items()),
            f"{case['matched']} of {case['regions']}",
            f"{case['features']:.1e}",
        )
        for name, case in cases.items()
        if "formats" in case
    )
    head = ("model", "precision", "formats", "boxes within 0.01 px", "worst")
    return section("## The fastest memory formats, against the usual ones", head, rows)


def selection(cases: Cases) -> Iterator[str]:
    """Times of the choice of regions."""
    done = {kind: case["milliseconds"] for kind, case in cases.items() if "milliseconds" in case}
    sizes = list(next(iter(done.values()), ()))
    rows = [(kind, *(f"{times[size]:.2f}" for size in sizes)) for kind, times in done.items()]
    head = ("scores", *(f"batches of {size}" for size in sizes))
    return section("## Selection alone, ms an image", head, rows)


def tests(cases: Cases) -> Iterator[str]:
    """What became of each test."""
    rows = (
        (f"`{test['test']}`", ": ".join(filter(None, (test["outcome"], test["text"]))))
        for case in cases.values()
        for test in case.get("tests", [])
    )
    return section("## Tests", ("test", "outcome"), rows)


def number(value: float | None) -> str:
    """Three digits; ``-`` of None."""
    return "-" if value is None else f"{value:.3g}"


def _model(case: str) -> tuple[str, str]:
    """Model and precision of a case's name."""
    name, precision, *_ = case.split()
    return f"`{name}`", precision


def _loops(cases: Cases) -> dict[str, Any]:
    """The original's loop, by the model's name."""
    return {case["model"]: case["original"] for case in cases.values() if "original" in case}
