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
        "a": _store(a, c.stores[0], len(c.names.pairs), c.names.only_a),
        "b": _store(b, c.stores[1], len(c.names.pairs), c.names.only_b),
        "images": {
            "common": len(c.names.pairs),
            "compared": len(c.compared),
            "paired_by": c.names.rule,
            "other_size": len(c.other_sizes),
        },
        "regions": {
            "matched": c.matched,
            "share_of_a": c.shares[0],
            "share_of_b": c.shares[1],
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
    }


def _store(reader: FeatureReader, tally: StoreTally, common: int, only: list[str]) -> dict:
    formats = {f.reader: f.name for f in FORMATS.values()}
    return {
        "path": str(reader.path),
        "format": formats.get(reader.kind),
        "images": common + len(only),
        "only_here": {"count": len(only), "first": only[:SHOWN_NAMES]},
        "regions": tally.regions,
        "regions_an_image": tally.regions_an_image,
        "features": [f"{dtype} x {dimension}" for dtype, dimension in sorted(tally.kinds)],
        "cls_prob_columns": sorted(tally.columns),
        "num_boxes": tally.num_boxes,
        "non_finite_regions": tally.non_finite,
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
        "regions an image": [s["regions_an_image"] for s in stores],
        "features": [", ".join(s["features"]) or "-" for s in stores],
        "cls_prob columns": [", ".join(map(str, s["cls_prob_columns"])) or "-" for s in stores],
        "num_boxes": [s["num_boxes"] for s in stores],
        "NaN or infinite regions": [s["non_finite_regions"] for s in stores],
    }
    for label, (a, b) in rows.items():
        yield f"{label:<{_WIDTH}}{a!s:<24}{b!s}".rstrip()
    for letter, store in zip("AB", stores, strict=True):
        names, more = store["only_here"]["first"], store["only_here"]["count"] - SHOWN_NAMES
        if names:
            yield f"only in {letter}: {', '.join(names)}{f' and {more} more' if more > 0 else ''}"


def _figures(content: dict[str, Any]) -> Iterator[str]:
    images, regions, errors = content["images"], content["regions"], content["feature_error"]
    classes = content["classes"]
    by_row = regions["matched_by_row_images"]
    rows = {
        "images compared": f"{images['compared']} of {images['common']} in both",
        "paired by": images["paired_by"] if images["paired_by"] != EXACT else "",
        "regions matched": f"{regions['matched']}: {regions['share_of_a']:.2%} of A, "
        f"{regions['share_of_b']:.2%} of B",
        "matched by row": f"{by_row} images, for want of boxes" if by_row else "",
        "box distance, px": _spread(content["box_distance"]),
        "feature error": _spread(errors) + (f", in {errors['worst_image']}" * bool(errors["max"])),
        "same class": f"{classes['same']} of {classes['compared']}",
        "cls_prob difference": _spread(content["cls_prob_difference"]),
    }
    yield from (f"{label:<{_WIDTH}}{text}" for label, text in rows.items() if text)


def _spread(quantiles: dict[str, float | None]) -> str:
    if quantiles["max"] is None:
        return "-"
    return "median {median:.2g}, 99th percentile {p99:.2g}, largest {max:.2g}".format_map(quantiles)


def _conclusions(content: dict[str, Any]) -> Iterator[str]:
    yield "SAME, within the tolerances" if content["same"] else "DIFFERENT:"
    yield from map(_item, content["reasons"])
    if content["opinions"]:
        yield "Probable causes:" if not content["same"] else "Of note:"
    yield from map(_item, content["opinions"])
    if content["unexplained"]:
        yield f"No known cause fits the difference in: {', '.join(content['unexplained'])}."


def _item(found: dict[str, Any]) -> str:
    return textwrap.fill(
        found["text"],
        width=100,
        initial_indent="  - ",
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )
