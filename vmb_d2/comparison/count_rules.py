"""Opinions on other numbers of regions, and on the background."""

from __future__ import annotations

from .compare import Comparison
from .diagnosis import FEW, STORES, Opinion, features_agree
from .tallies import StoreTally
from .verdict import counted

_NEARLY_ALL = 0.95


def num_features(c: Comparison) -> Opinion | None:
    """One store has more regions of an image; the shorter list is part of the longer."""
    counts = c.counts
    if not counts.lengths_differ or (c.by_row and not features_agree(c)):
        return None
    if counts.shorter_matched < _NEARLY_ALL * counts.shorter_regions:
        return None
    lengths = [_lengths(store) for store in c.stores]
    part = "first rows" if counts.prefixes == counts.lengths_differ else "regions"
    images = counted(counts.lengths_differ, "image")
    fixed = all(store.fewest == store.most for store in c.stores)
    if fixed:
        cause = "another num_features. Extract both with the same, or cut the longer"
    else:
        cause = "an adaptive number of regions, or a confidence threshold that drops the others"
    return Opinion(
        "num_features",
        frozenset({"boxes", "num_boxes"}),
        f"A has {lengths[0]} regions an image and B {lengths[1]}; where the numbers differ "
        f"({images}), those of the shorter are {part} of the longer "
        f"({counts.shorter_matched} of {counts.shorter_regions} matched): {cause}.",
    )


def _lengths(store: StoreTally) -> str:
    low, high = store.fewest, store.most
    return f"{low}" if low == high else f"{low} to {high}"


def confidence_threshold(c: Comparison) -> Opinion | None:
    """Fewer regions of one store count, and these are in both."""
    counts = c.counts
    if min(counts.shares) >= c.settings.matched:  # a threshold chooses others to fill up, too
        return None
    off = counts.num_boxes[0] - counts.num_boxes[1]
    if (
        not counts.confident_differ
        or counts.lengths_differ
        or abs(off) != counts.num_boxes_off
        or counts.confident_matched < _NEARLY_ALL * counts.confident_regions
        or counts.confident_regions < FEW
    ):
        return None
    fewer = STORES[0] if off < 0 else STORES[1]
    return Opinion(
        "confidence_threshold",
        frozenset({"boxes", "num_boxes"}),
        f"{fewer} has the smaller num_boxes in {counted(counts.confident_differ, 'image')} "
        f"({counts.num_boxes[0]} in A, {counts.num_boxes[1]} in B in all), and "
        f"{counts.confident_matched} of the {counts.confident_regions} regions that count are the "
        f"other's too: {fewer} has the higher confidence_threshold. The rows past num_boxes only "
        "fill up.",
    )


def num_boxes(c: Comparison) -> Opinion | None:
    """The same regions, but in one store all of them count."""
    counts, (a, b) = c.counts, c.stores
    same = min(counts.shares) >= c.settings.matched and not counts.lengths_differ
    if not same or a.all_count == b.all_count:
        return None
    every, some = STORES if a.all_count else reversed(STORES)
    return Opinion(
        "num_boxes",
        frozenset(),
        f"The regions are the same, but in {every} num_boxes is all of them, in {some} it isn't: "
        f"{every}'s format doesn't keep it (the TSVs don't), or it was lost. Take {some}'s.",
    )


def background(c: Comparison) -> Opinion | None:
    """The background takes part in one store, so that its classes are one more."""
    classes = c.classes
    for store, other in ((0, 1), (1, 0)):
        name, evidence = STORES[store], []
        more, likely = classes.one_more[store], classes.one_more_or_0[store]
        if (
            classes.compared >= FEW
            and more >= 0.5 * classes.compared
            and likely >= 0.99 * classes.compared
        ):
            evidence.append(f"{more} of {classes.compared} classes of {name} are one more")
        if classes.background_column[store] and not classes.background_column[other]:
            images = classes.background_column[store]
            evidence.append(f"cls_prob of {name} has one column more in {counted(images, 'image')}")
        if evidence:
            return Opinion(
                "background",
                frozenset({"classes", "cls_prob"}),
                f"{' and '.join(evidence)}: in {name} the background counts as class 0 "
                f"(background=true), in {STORES[other]} it doesn't. Extract both alike, or take 1 "
                f"from {name}'s classes and leave out column 0.",
            )
    return None
