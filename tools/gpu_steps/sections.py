"""The tables of `make gpu`'s steps in Markdown, each from the results of a step's cases."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_MIB = 1 << 20


def parity(cases: Mapping[str, Any]) -> Iterator[str]:
    """The goldens, and the batches."""
    if not cases:
        return
    yield "## Parity with the originals, fp32"
    yield ""
    rows, batches = [], []
    for name, case in cases.items():
        goldens = case.get("goldens", [])
        if goldens:
            sums = {k: sum(g[k] for g in goldens) for k in ("regions", "matched", "same_class")}
            rows.append(
                (
                    f"`{name}`",
                    f"{sum(g['met'] for g in goldens)} of {len(goldens)}",
                    f"{sums['matched']} of {sums['regions']}",
                    f"{max(g['box'] for g in goldens):.1e} px",
                    f"{max(g['features'] for g in goldens):.1e}",
                    f"{sums['same_class']} of {sums['matched']}",
                )
            )
        for batch in case.get("batches", []):
            size = f"{batch['batch_size']}{', shuffled' if batch['shuffled'] else ''}"
            matched = f"{batch['matched']} of {batch['regions']}"
            model = f"`{name.split()[0]}`"
            batches.append((model, size, matched, f"{batch['features']:.1e}"))
    head = ("model", "goldens as the tests demand", "boxes within 0.01 px", "farthest", "worst")
    yield from table((*head, "classes"), rows)
    yield ""
    yield (
        "*worst*: feature vector, relative L2. The goldens are from a CPU, where VMB's NMS drops a "
        "box whose overlap equals the threshold; its GPU code keeps it, and so does this project "
        "on a GPU. Images with many equal overlaps, such as horse, can differ by that."
    )
    if batches:
        yield ""
        yield "Images in batches against each image alone:"
        yield ""
        yield from table(("model", "batch size", "boxes within 0.01 px", "worst"), batches)


def speed(cases: Mapping[str, Any], chart: str | None) -> Iterator[str]:
    """Rates and stages, with the chart."""
    if not cases:
        return
    yield "## Speed"
    yield ""
    if chart:
        yield f"![images a second end to end, by model and precision]({chart})"
        yield ""
    loops = {c["model"]: c["original"] for c in cases.values() if "original" in c}
    rows, stage_rows, names = [], [], []
    for case in cases.values():
        own = case.get("configuration")
        if not own:
            continue
        network, whole = own["network"], own["end_to_end"]["images_per_second"]
        loop, memory = loops.get(case["model"]), own["peak_memory_bytes"]
        rows.append(
            (
                f"`{case['model']}`",
                case["precision"],
                str(own["batch_size"]),
                number(network["images_per_second"]),
                f"{network['share_of_peak']:.0%}",
                f"{number(whole)} ({case['images']['end_to_end']} images)",
                number(whole / loop["images_per_second"]) if loop else "-",
                ", ".join(f"{where} {size / _MIB:.0f}" for where, size in memory.items()),
            )
        )
        names = list(own["stages"])
        times = (_milliseconds(stage) for stage in own["stages"].values())
        stage_rows.append((f"`{case['model']}`", case["precision"], *times))
    for model, loop in loops.items():
        times = (_milliseconds(stage) for stage in loop["stages"].values())
        stage_rows.append((f"`{model}`", "the original's loop", *times))
    head = ("model", "precision", "batch size (`auto`)", "network alone, images/s")
    more = ("share of the peak", "end to end, images/s", "times the original's loop")
    yield from table((*head, *more, "most memory, MiB"), rows)
    yield ""
    yield "Stages, ms an image:"
    yield ""
    yield from table(("model", "precision", *names), stage_rows)


def batch_sizes(cases: Mapping[str, Any]) -> Iterator[str]:
    """Rates by batch size."""
    sweeps = [case for case in cases.values() if "sizes" in case]
    if not sweeps:
        return
    yield "Network alone, images/s by batch size:"
    yield ""
    sizes = list(dict.fromkeys(s["batch_size"] for case in sweeps for s in case["sizes"]))
    rows = []
    for case in sweeps:
        found = {
            s["batch_size"]: number(s["network"]["images_per_second"])
            for s in case["sizes"]
            if "network" in s
        }
        rates = (found.get(size, "no memory") for size in sizes)
        rows.append((f"`{case['model']}`", case["precision"], *rates))
    yield from table(("model", "precision", *map(str, sizes)), rows)


def precision(cases: Mapping[str, Any]) -> Iterator[str]:
    """The price of lower precisions."""
    done = {name: case for name, case in cases.items() if "near" in case}
    if not done:
        return
    yield "## The price of lower precisions, against fp32"
    yield ""
    rows = [
        (
            f"`{name.split()[0]}`",
            name.split()[1],
            f"{c['near']:.0%}",
            f"{c['features_median']:.1e}, {c['features_worst']:.1e}",
            f"{c['same_class']:.1%}",
            f"{c['given_features_median']:.1e}, {c['given_features_worst']:.1e}",
            f"{c['given_same_class']:.1%}",
        )
        for name, c in done.items()
    ]
    head = ("model", "precision", "boxes within 2 px", "their features: median, worst")
    yield from table((*head, "classes", "the same boxes given: median, worst", "classes"), rows)


def kernels(cases: Mapping[str, Any]) -> Iterator[str]:
    """cuDNN's settings and the memory formats."""
    settings = [(name.split(), s) for name, case in cases.items() for s in case.get("settings", [])]
    formats = [(name.split(), case) for name, case in cases.items() if "formats" in case]
    if settings:
        yield "## cuDNN's settings, the same photographs three times"
        yield ""
        rows = [
            (
                f"`{model}`",
                precision,
                "on" if s["benchmark"] else "off",
                "on" if s["deterministic"] else "off",
                "yes" if s["equal"] else "no",
                f"{s['milliseconds']:.1f}",
            )
            for (model, precision, *_), s in settings
        ]
        head = ("model", "precision", "`benchmark`", "`deterministic`", "equal to the bit")
        yield from table((*head, "network, ms an image"), rows)
        yield ""
    if formats:
        yield "## The fastest memory formats, against the usual ones"
        yield ""
        rows = [
            (
                f"`{model}`",
                precision,
                ", ".join(f"{stage} {name}" for stage, name in case["formats"].items()),
                f"{case['matched']} of {case['regions']}",
                f"{case['features']:.1e}",
            )
            for (model, precision, *_), case in formats
        ]
        head = ("model", "precision", "formats", "boxes within 0.01 px", "worst")
        yield from table(head, rows)


def selection(cases: Mapping[str, Any]) -> Iterator[str]:
    """Times of the choice of regions."""
    done = {kind: case["milliseconds"] for kind, case in cases.items() if "milliseconds" in case}
    if not done:
        return
    yield "## Selection alone, ms an image"
    yield ""
    sizes = list(next(iter(done.values())))
    rows = [(kind, *(f"{times[size]:.2f}" for size in sizes)) for kind, times in done.items()]
    yield from table(("scores", *(f"batches of {size}" for size in sizes)), rows)


def tests(cases: Mapping[str, Any]) -> Iterator[str]:
    """What became of each test."""
    tests = [test for case in cases.values() for test in case.get("tests", [])]
    if not tests:
        return
    yield "## Tests"
    yield ""
    yield from table(
        ("test", "outcome"),
        [(f"`{t['test']}`", ": ".join(filter(None, (t["outcome"], t["text"])))) for t in tests],
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The lines of a table."""
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', '/') for cell in row)} |"


def number(value: float | None) -> str:
    """Three digits; ``-`` of None."""
    return "-" if value is None else f"{value:.3g}"


def _milliseconds(figures: Mapping[str, Any]) -> str:
    return f"{1000 * figures['seconds']['median']:.2f}"
