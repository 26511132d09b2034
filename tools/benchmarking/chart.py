"""A benchmark as a picture: where the time goes, and throughput against batch size."""

from __future__ import annotations

import io
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .stages import STAGES

_RATES = {"network": "network alone", "end_to_end": "end to end"}
_STYLES = {"network": "--", "end_to_end": "-"}


def png_chart(content: dict[str, Any]) -> bytes:
    """A PNG of what :func:`benchmarking.measure` gave; what wasn't measured is left out."""
    figure = Figure(figsize=(13, 5), layout="constrained")
    figure.suptitle(f"{content['model']} on {content['machine']['device_name']}")
    left, right = figure.subplots(1, 2)
    _draw_stages(left, content)
    _draw_rates(right, content)
    target = io.BytesIO()
    figure.savefig(target, format="png", dpi=120)
    return target.getvalue()


def bars(content: dict[str, Any]) -> dict[str, list[float]]:
    """Seconds an image in each of :data:`STAGES`, by the name of the bar."""
    found = {
        f"{c['precision']}, {c['batch_size']}": c["stages"]
        for c in content["configurations"]
        if "stages" in c
    }
    if "original" in content:
        found["the original's loop"] = content["original"]["stages"]
    return {
        name: [stages[stage]["seconds"]["median"] for stage in STAGES]
        for name, stages in found.items()
    }


def curves(content: dict[str, Any]) -> dict[tuple[str, str], list[tuple[int, float]]]:
    """(precision, kind) -> (batch size, images a second) by growing batch size."""
    found: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for c in sorted(content["configurations"], key=lambda c: c["batch_size"]):
        for kind in _RATES:
            if kind in c:
                point = c["batch_size"], c[kind]["images_per_second"]
                found.setdefault((c["precision"], kind), []).append(point)
    return found


def _draw_stages(axes: Axes, content: dict[str, Any]) -> None:
    rows = bars(content)
    names = list(rows)
    left = [0.0] * len(names)
    for number, stage in enumerate(STAGES):
        widths = [rows[name][number] for name in names]
        axes.barh(names, widths, left=left, label=stage, color=f"C{number}")
        left = [a + b for a, b in zip(left, widths, strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel("seconds an image")
    axes.set_title("stages, one after the other (precision, batch size)")
    _legend(axes)


def _draw_rates(axes: Axes, content: dict[str, Any]) -> None:
    found = curves(content)
    colors = {precision: f"C{i}" for i, precision in enumerate(dict.fromkeys(p for p, _ in found))}
    for (precision, kind), points in found.items():
        sizes, rates = zip(*points, strict=True)
        label = f"{precision}, {_RATES[kind]}"
        style = _STYLES[kind]
        axes.plot(sizes, rates, style, marker="o", color=colors[precision], label=label)
    if "original" in content:
        rate = content["original"]["images_per_second"]
        axes.axhline(rate, color="0.5", linestyle=":", label="the original's loop")
    sizes = sorted({c["batch_size"] for c in content["configurations"]})
    axes.set_xticks(sizes)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("batch size")
    axes.set_ylabel("images a second")
    axes.set_title("throughput")
    _legend(axes)


def _legend(axes: Axes) -> None:
    """Below the axes."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize="small", ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.12))
