"""Whether two stores are the same, and if not, in what they differ."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from .compare import Comparison


class Reason(NamedTuple):
    """One difference that counts: what it is in, and a sentence with the figures."""

    kind: str
    text: str


def counted(count: int, noun: str) -> str:
    """``1 image``, ``2 images``, ``2 boxes``."""
    plural = "es" if noun.endswith("x") else "s"
    return f"{count} {noun}{'' if count == 1 else plural}"


def reasons(c: Comparison) -> list[Reason]:
    """All differences that count, by the settings; none: the stores are the same."""
    return [*_images(c), *_boxes(c), *_features(c), *_classes(c)]


def convention_images(c: Comparison) -> int:
    """In how many images A and B write their boxes in different ways."""
    return sum(count for (a, b), count in c.boxes.conventions.items() if a != b)


def num_boxes_known(c: Comparison) -> bool:
    """Whether both stores say which regions count: not all of them in every image."""
    return not any(store.all_count for store in c.stores)


def _images(c: Comparison) -> Iterator[Reason]:
    only_a, only_b = len(c.names.only_a), len(c.names.only_b)
    if (only_a or only_b) and not c.settings.common_only:
        yield Reason("images", f"images in one only: {only_a} in A, {only_b} in B")
    if not c.compared:
        yield Reason("images", "no image is in both")
    if c.other_sizes:
        yield Reason("image_size", f"{counted(c.other_sizes, 'image')} of another width or height")


def _boxes(c: Comparison) -> Iterator[Reason]:
    if count := convention_images(c):
        yield Reason(
            "conventions", f"boxes are written in another way in {counted(count, 'image')}"
        )
    share = min(c.counts.shares)
    if share < c.settings.matched:
        text = f"{share:.2%} of the regions are matched, less than {c.settings.matched:.2%}"
        yield Reason("boxes", text)
    total = max(c.counts.num_boxes)
    if num_boxes_known(c) and total - c.counts.num_boxes_off < c.settings.matched * total:
        text = f"num_boxes is off by {c.counts.num_boxes_off} of {total} in all"
        yield Reason("num_boxes", text)


def _features(c: Comparison) -> Iterator[Reason]:
    if c.features.incomparable:
        text = f"features have another dimension in {counted(c.features.incomparable, 'image')}"
        yield Reason("dimension", text)
    if c.features.non_finite:
        text = f"{counted(c.features.non_finite, 'matched region')} with other NaNs or infinities"
        yield Reason("non_finite", text)
    error = c.features.errors.quantile(0.99)
    if error is not None and error > c.settings.tolerance:
        text = (
            f"99th percentile of the feature errors: {error:.1e}, above {c.settings.tolerance:.1e}"
        )
        yield Reason("features", text)


def _classes(c: Comparison) -> Iterator[Reason]:
    classes = c.classes
    if classes.same < c.settings.matched * classes.compared:
        text = f"{classes.same} of {classes.compared} matched regions have the same class"
        yield Reason("classes", text)
    columns = classes.columns_differ + sum(classes.background_column)
    if columns:
        yield Reason("cls_prob", f"cls_prob has other columns in {counted(columns, 'image')}")
    difference = classes.probabilities.quantile(0.99)
    if difference is not None and difference > c.settings.tolerance:
        text = f"99th percentile of the differences in cls_prob: {difference:.1e}"
        yield Reason("cls_prob", f"{text}, above {c.settings.tolerance:.1e}")
