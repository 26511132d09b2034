"""A benchmark as a table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_MIB = 1 << 20


def table(content: dict[str, Any]) -> str:
    """What :func:`benchmarking.measuring.measure` returned, as text."""
    return "\n".join(_lines(content)) + "\n"


def _lines(content: dict[str, Any]) -> Iterator[str]:
    machine, images, original = content["machine"], content["images"], content.get("original")
    yield f"{content['model']}, weights: {content['weights']}"
    yield (
        f"{machine['device']}: {machine['device_name']}; {machine['cores']} cores, "
        f"{machine['threads']} threads, load {machine['load_average']} before; "
        f"torch {machine['versions']['torch']}"
    )
    sizes = ", ".join(f"{n} of {size}" for size, n in images["padded_sizes"].items())
    yield f"{images['count']} images, padded to: {sizes}"
    yield f"seconds per image, medians of {content['repeats']} (least to most)"
    for c in content["configurations"]:
        yield ""
        yield f"{c['precision']}, batch size {c['batch_size']}"
        if "stages" in c:
            yield from _stages(c["stages"], c["sum_of_stages"])
            yield _line("sum of stages", c["sum_of_stages"])
        if "network" in c:
            yield _line("network alone", c["network"], end=_arithmetic(c["network"]))
        if "end_to_end" in c:
            yield _line("end to end", c["end_to_end"], end=_comparison(c, original))
        if memory := c.get("peak_memory_bytes"):
            texts = [f"{where} {size / _MIB:.0f} MiB" for where, size in memory.items()]
            yield f"  {'most memory':<18} {', '.join(texts)}"
        peak = content["peak_macs_per_second"][c["precision"]] / 1e9
        yield f"  {'peak':<18} {peak:.4g} GMAC/s in a product of matrices"
    if original:
        yield ""
        yield "the original's loop (fp32, one image at a time, NMS class by class)"
        yield from _stages(original["stages"], original)
        yield _line("end to end", original, end=f"{original['images_per_second']:.3g} images/s")


def _stages(stages: dict[str, Any], whole: dict[str, Any]) -> Iterator[str]:
    for stage, figures in stages.items():
        share = figures["seconds"]["median"] / whole["seconds"]["median"]
        yield _line(stage, figures, f"{share:6.1%}")


def _comparison(c: dict[str, Any], original: dict[str, Any] | None) -> str:
    seconds = c["end_to_end"]["seconds"]["median"]
    texts = [f"{c['end_to_end']['images_per_second']:.3g} images/s"]
    if "sum_of_stages" in c:
        share = c["sum_of_stages"]["seconds"]["median"] / seconds
        texts.append(f"the stages are {share:.0%} of it")
    if original:
        ratio = original["seconds"]["median"] / seconds
        texts.append(f"{ratio:.2f} times the original's rate")
    return "; ".join(texts)


def _arithmetic(network: dict[str, Any]) -> str:
    return (
        f"{network['macs'] / 1e9:.4g} GMAC at {network['macs_per_second'] / 1e9:.4g} GMAC/s, "
        f"{network['share_of_peak']:.0%} of the peak"
    )


def _line(label: str, figures: dict[str, Any], share: str = "", end: str = "") -> str:
    median, least, most = (_number(figures["seconds"][key]) for key in ("median", "least", "most"))
    return f"  {label:<18} {f'{median} ({least} to {most})':<30}{share:<8}{end}".rstrip()


def _number(seconds: float) -> str:
    return f"{seconds:.{2 if seconds >= 10 else 3 if seconds >= 0.1 else 5}f}"
