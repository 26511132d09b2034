"""A benchmark as a picture: where the time goes, and throughput against batch size."""

from __future__ import annotations

import io
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .stages import STAGES

_LINES = {"network": ("network alone", "--"), "end_to_end": ("end to end", "-")}


def png_chart(content: dict[str, Any]) -> bytes:
    """A PNG of what :func:`benchmarking.measuring.measure` returns, as far as it was measured."""
    figure = Figure(figsize=(13, 5), layout="constrained")
    figure.suptitle(f"{content['model']} on {content['machine']['device_name']}")
    left, right = figure.subplots(1, 2)
    _draw_stages(left, content)
    _draw_rates(right, content)
    for axes in (left, right):
        if axes.get_legend_handles_labels()[0]:
            below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.12)}
            axes.legend(fontsize="small", ncols=4, **below)
    target = io.BytesIO()
    figure.savefig(target, format="png", dpi=120)
    return target.getvalue()


def _draw_stages(axes: Axes, content: dict[str, Any]) -> None:
    bars = {f"{c['precision']}, {c['batch_size']}": c for c in content["configurations"]}
    bars = {name: c["stages"] for name, c in bars.items() if "stages" in c}
    if "original" in content:
        bars["the original's loop"] = content["original"]["stages"]
    left = [0.0] * len(bars)
    for number, stage in enumerate(STAGES):
        widths = [stages[stage]["seconds"]["median"] for stages in bars.values()]
        axes.barh(list(bars), widths, left=left, label=stage, color=f"C{number}")
        left = [a + b for a, b in zip(left, widths, strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel("seconds per image")
    axes.set_title("stages, one after the other (precision, batch size)")


def _draw_rates(axes: Axes, content: dict[str, Any]) -> None:
    by_size = sorted(content["configurations"], key=lambda c: c["batch_size"])
    for number, precision in enumerate(dict.fromkeys(c["precision"] for c in by_size)):
        for part, (label, style) in _LINES.items():
            chosen = [c for c in by_size if c["precision"] == precision and part in c]
            sizes = [c["batch_size"] for c in chosen]
            values = [c[part]["images_per_second"] for c in chosen]
            options = {"marker": "o", "color": f"C{number}", "label": f"{precision}, {label}"}
            if chosen:
                axes.plot(sizes, values, style, **options)
    if "original" in content:
        rate = content["original"]["images_per_second"]
        axes.axhline(rate, color="0.5", linestyle=":", label="the original's loop")
    axes.set_xticks(sorted({c["batch_size"] for c in by_size}))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("batch size")
    axes.set_ylabel("images per second")
    axes.set_title("throughput")
