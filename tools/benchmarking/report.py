"""A benchmark for people, as a table, and for programs, as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from .made_scores import KINDS

_WIDTH = 18
_MIB = 1 << 20


def json_text(content: dict[str, Any]) -> str:
    """All figures as one JSON object."""
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def table(content: dict[str, Any]) -> str:
    """What :func:`benchmarking.measure` gave, and what was added, for people."""
    lines = list(_head(content))
    for configuration in content["configurations"]:
        lines += ["", *_configuration(configuration, content)]
    if "original" in content:
        lines += ["", *_original(content["original"])]
    if "selection" in content:
        lines += ["", *_selection(content["selection"])]
    if "start_up" in content:
        lines += ["", *_start_up(content["start_up"])]
    if "endurance" in content:
        lines += ["", *_endurance(content["endurance"])]
    return "\n".join(lines) + "\n"


def _head(content: dict[str, Any]) -> Iterator[str]:
    machine, images = content["machine"], content["images"]
    versions = machine["versions"]
    yield f"{content['model']}, weights: {content['weights']}"
    yield (
        f"{machine['device']}: {machine['device_name']}; {machine['cores']} cores, "
        f"{machine['threads']} threads, load {machine['load_average']} before; "
        f"torch {versions['torch']}"
    )
    sizes = ", ".join(f"{n} of {size}" for size, n in images["padded_sizes"].items())
    yield f"{images['count']} images, padded to: {sizes}"
    yield f"seconds an image, medians of {content['repeats']} (least to most)"


def _configuration(c: dict[str, Any], content: dict[str, Any]) -> Iterator[str]:
    yield f"{c['precision']}, batch size {c['batch_size']}"
    for stage, figures in c.get("stages", {}).items():
        share = figures["seconds"]["median"] / c["sum_of_stages"]["seconds"]["median"]
        yield _line(stage, _spread(figures["seconds"]), f"{share:6.1%}", _arithmetic(figures))
    if "stages" in c:
        yield _line("sum of stages", _spread(c["sum_of_stages"]["seconds"]))
    if "network" in c:
        figures = c["network"]
        yield _line("network alone", _spread(figures["seconds"]), "", _arithmetic(figures))
    if "end_to_end" in c:
        yield _line("end to end", _spread(c["end_to_end"]["seconds"]), "", _speed(c, content))
    for part, sizes in c["peak_memory_bytes"].items():
        texts = [f"{where} {size / _MIB:.0f} MiB" for where, size in sizes.items() if size]
        yield _line("most memory", f"{part.replace('_', ' ')}: {', '.join(texts)}")
    peak = content["peak_macs_per_second"][c["precision"]]
    yield _line("peak", f"{peak / 1e9:.4g} GMAC/s in a product of matrices")


def _speed(c: dict[str, Any], content: dict[str, Any]) -> str:
    seconds = c["end_to_end"]["seconds"]["median"]
    texts = [f"{c['end_to_end']['images_per_second']:.3g} images/s"]
    if "sum_of_stages" in c:
        share = c["sum_of_stages"]["seconds"]["median"] / seconds
        texts.append(f"the stages are {share:.0%} of it")
    if "original" in content:
        ratio = content["original"]["seconds"]["median"] / seconds
        texts.append(f"{ratio:.2f} times the original's rate")
    return "; ".join(texts)


def _arithmetic(figures: dict[str, Any]) -> str:
    if "macs" not in figures:
        return ""
    return (
        f"{figures['macs'] / 1e9:.4g} GMAC at {figures['macs_per_second'] / 1e9:.4g} GMAC/s, "
        f"{figures['share_of_peak']:.0%} of the peak"
    )


def _original(original: dict[str, Any]) -> Iterator[str]:
    yield "the original's loop (fp32, one image at a time, NMS class by class)"
    whole = original["seconds"]["median"]
    for stage, figures in original["stages"].items():
        share = figures["seconds"]["median"] / whole
        yield _line(stage, _spread(figures["seconds"]), f"{share:6.1%}")
    rate = f"{original['images_per_second']:.3g} images/s"
    yield _line("end to end", _spread(original["seconds"]), "", rate)


def _selection(selection: dict[str, Any]) -> Iterator[str]:
    regions, classes = selection["regions"], selection["classes"]
    yield f"choice of regions by itself, {regions} regions x {classes} classes, seconds"
    for kind in KINDS:
        figures = selection[kind]
        ratio = figures["original"]["median"] / figures["ours"]["median"]
        same = "the same result" if figures["same"] else "ANOTHER RESULT"
        original = f"the original's {_spread(figures['original'])}"
        yield _line(f"{kind} scores", _spread(figures["ours"]), "", original)
        yield _line("", f"{ratio:.3g} times as fast, {same}")


def _start_up(start_up: dict[str, Any]) -> Iterator[str]:
    yield "tools/extract.py as a process, seconds from its start to its end"
    for what, seconds in start_up.items():
        yield _line(what.replace("_", " "), _spread(seconds))


def _endurance(endurance: dict[str, Any]) -> Iterator[str]:
    rate = endurance["images"] / endurance["seconds"]
    yield (
        f"memory over {endurance['images']} images with {endurance['network']}, {rate:.3g} images/s"
    )
    for whose, sizes in endurance["memory_bytes"].items():
        if sizes["peak"]:
            texts = [f"{when} {size / _MIB:.0f}" for when, size in sizes.items()]
            label = "this process" if whose == "own" else "those it started"
            yield _line(label, f"{', '.join(texts)} MiB")


def _line(label: str, *columns: str) -> str:
    widths = (30, 8)
    padded = [f"{c:<{w}}" for c, w in zip(columns, widths, strict=False)]
    return f"  {label:<{_WIDTH}} {''.join([*padded, *columns[len(widths) :]])}".rstrip()


def _spread(s: dict[str, float]) -> str:
    return f"{_seconds(s['median'])} ({_seconds(s['least'])} to {_seconds(s['most'])})"


def _seconds(value: float) -> str:
    return f"{value:.2f}" if value >= 10 else f"{value:.3f}" if value >= 0.1 else f"{value:.5f}"
