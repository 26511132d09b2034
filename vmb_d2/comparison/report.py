"""A comparison for people, as a table, and for programs, as JSON."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from ..stores import FORMATS, FeatureReader
from .causes import opinions, unexplained
from .compare import Comparison, reasons
from .names import EXACT
from .tallies import StoreTally

SHOWN_NAMES = 5
_WIDTH = 24


def as_dict(c: Comparison, a: FeatureReader, b: FeatureReader) -> dict[str, Any]:
    """All figures, plain values only; docs/comparing.md describes the keys."""
    found, judged = opinions(c), list(reasons(c))
    cosine = c.features.angles.quantile(0.5)
    return {
        "same": not judged,
        "reasons": [r._asdict() for r in judged],
        "opinions": [{**o._asdict(), "explains": sorted(o.explains)} for o in found],
        "unexplained": unexplained(judged, found),
        "settings": asdict(c.settings),
        "a": _store(a, c.stores[0], c.names.only_a, c),
        "b": _store(b, c.stores[1], c.names.only_b, c),
        "images": {
            "common": len(c.names.pairs),
            "compared": len(c.compared),
            "paired_by": c.names.rule,
            "ambiguous_names": c.names.ambiguous,
            "other_size": c.other_sizes,
        },
        "regions": {
            "matched": c.counts.matched,
            "share_of_a": c.counts.shares[0],
            "share_of_b": c.counts.shares[1],
            "matched_by_row_images": c.by_row,
            "reordered_images": c.boxes.reordered,
        },
        "box_distance": c.boxes.distances.summary(),
        "feature_error": {
            **c.features.errors.summary(),
            "worst_image": c.features.worst[1] if c.features.worst else None,
            "incomparable_images": c.features.incomparable,
            "non_finite_in_one": c.features.non_finite,
            "one_minus_cosine_median": None if math.isnan(cosine) else cosine,
        },
        "classes": {"compared": c.classes.compared, "same": c.classes.same},
        "cls_prob_difference": {
            **c.classes.probabilities.summary(),
            "other_columns_images": c.classes.columns_differ,
        },
        "num_boxes": {
            "a": c.counts.num_boxes[0],
            "b": c.counts.num_boxes[1],
            "same_images": c.counts.num_boxes_same,
            "judged": c.num_boxes_known,
        },
    }


def _store(
    reader: FeatureReader, tally: StoreTally, only: list[str], c: Comparison
) -> dict[str, Any]:
    formats = {f.reader: f.name for f in FORMATS.values()}
    return {
        "path": str(reader.path),
        "format": formats.get(reader.kind),
        "images": len(c.names.pairs) + len(only),
        "only_here": {"count": len(only), "first": only[:SHOWN_NAMES]},
        "regions": tally.regions,
        "fewest_regions": tally.fewest,
        "most_regions": tally.most,
        "features": [
            {"dtype": dtype, "dimension": dimension, "images": images}
            for (dtype, dimension), images in sorted(tally.kinds.items())
        ],
        "cls_prob_columns": sorted(tally.columns),
        "images_with_boxes": tally.with_boxes,
        "images_with_objects": tally.with_objects,
        "non_finite_regions": tally.non_finite,
        "zeros_share": tally.zeros_share,
    }


def json_text(content: dict[str, Any]) -> str:
    """The figures as one JSON object. It has no NaN or infinity, which JSON doesn't know."""
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def table(content: dict[str, Any]) -> str:
    """What :func:`as_dict` gave, for people."""
    lines = [*_side_by_side(content), "", *_figures(content), "", *_conclusions(content)]
    return "\n".join(lines) + "\n"


def _side_by_side(content: dict[str, Any]) -> Iterator[str]:
    stores = content["a"], content["b"]
    yield f"A: {stores[0]['path']}"
    yield f"B: {stores[1]['path']}"
    yield ""
    rows = {
        "": ("A", "B"),
        "format": [s["format"] or "?" for s in stores],
        "images": [s["images"] for s in stores],
        "in this store only": [s["only_here"]["count"] for s in stores],
        "regions compared": [s["regions"] for s in stores],
        "regions an image": [_interval(s["fewest_regions"], s["most_regions"]) for s in stores],
        "features": [_kinds(s["features"]) for s in stores],
        "cls_prob columns": [", ".join(map(str, s["cls_prob_columns"])) or "-" for s in stores],
        "num_boxes": [content["num_boxes"][s] for s in "ab"],
    }
    if any(s["non_finite_regions"] for s in stores):
        rows["NaN or infinite regions"] = [s["non_finite_regions"] for s in stores]
    for label, (a, b) in rows.items():
        yield f"{label:<{_WIDTH}}{a!s:<24}{b!s}".rstrip()
    for letter, store in zip("AB", stores, strict=True):
        names, more = store["only_here"]["first"], store["only_here"]["count"] - SHOWN_NAMES
        if names:
            yield f"only in {letter}: {', '.join(names)}{f' and {more} more' if more > 0 else ''}"


def _interval(low: int | None, high: int | None) -> str:
    if low is None:
        return "-"
    return f"{low}" if low == high else f"{low} to {high}"


def _kinds(kinds: list[dict[str, Any]]) -> str:
    return ", ".join(f"{k['dtype']} x {k['dimension']}" for k in kinds) or "-"


def _figures(content: dict[str, Any]) -> Iterator[str]:
    images, regions, errors = content["images"], content["regions"], content["feature_error"]
    yield _line("images compared", f"{images['compared']} of {images['common']} in both")
    if images["paired_by"] != EXACT:
        ambiguous = images["ambiguous_names"]
        note = f"; {ambiguous} ambiguous names left out" if ambiguous else ""
        yield _line("paired by", f"{images['paired_by']}{note}")
    share_a, share_b = regions["share_of_a"], regions["share_of_b"]
    shares = f": {share_a:.2%} of A, {share_b:.2%} of B" if images["compared"] else ""
    yield _line("regions matched", f"{regions['matched']}{shares}")
    if by_row := regions["matched_by_row_images"]:
        yield _line("", f"{by_row} images by row, for want of boxes")
    yield _line("box distance, px", _spread(content["box_distance"]))
    worst = f", in {errors['worst_image']}" if errors["max"] else ""
    yield _line("feature error", _spread(errors) + worst)
    same, compared = content["classes"]["same"], content["classes"]["compared"]
    yield _line("same class", f"{same} of {compared}" if compared else "-")
    yield _line("cls_prob difference", _spread(content["cls_prob_difference"]))
    same = content["num_boxes"]["same_images"]
    yield _line("same num_boxes", f"in {same} of {images['compared']} images")


def _item(text: str) -> str:
    return textwrap.fill(
        text,
        width=100,
        initial_indent="  - ",
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _line(label: str, text: str) -> str:
    return f"{label:<{_WIDTH}}{text}"


def _spread(quantiles: dict[str, float | None]) -> str:
    if quantiles["max"] is None:
        return "-"
    return "median {median:.2g}, 99th percentile {p99:.2g}, largest {max:.2g}".format_map(quantiles)


def _conclusions(content: dict[str, Any]) -> Iterator[str]:
    yield "SAME, within the tolerances" if content["same"] else "DIFFERENT:"
    for reason in content["reasons"]:
        yield _item(reason["text"])
    if content["opinions"]:
        yield "Probable causes:" if not content["same"] else "Of note:"
    for opinion in content["opinions"]:
        yield _item(opinion["text"])
    if content["unexplained"]:
        yield f"No known cause fits the difference in: {', '.join(content['unexplained'])}."
