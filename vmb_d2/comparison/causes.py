"""The causes that make stores different, each recognised by the figures of a comparison."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import torch

from ..data.preprocessing import LONG_SIDE, SHORT_SIDE
from .compare import Comparison, Reason, counted
from .names import EXACT
from .tallies import LOWER_PRECISION

STORES = ("A", "B")
FEW = 10  # so few matched regions are no evidence
_NEARLY_ALL = 0.95

_ALL = frozenset({"boxes", "features", "classes", "cls_prob", "num_boxes", "dimension"})
_COUNTS = frozenset({"boxes", "num_boxes"})
_SELF_EXPLANATORY = frozenset({"images", "image_size"})
_LAYOUTS = {"xywh": "x, y, width, height", "yxyx": "y1, x1, y2, x2", "xyxy": "x1, y1, x2, y2"}
_UNITS = {
    "original": "in original pixels",
    "network": f"in network pixels: divide them by {SHORT_SIDE} / short side, or {LONG_SIDE} / "
    "long side where that is less",
    "normalised": "normalised: multiply them by the image's width and height",
}


class Opinion(NamedTuple):
    """What probably made a difference.

    Attributes:
        name: of the cause.
        explains: the kinds of :class:`Reason` that it can account for.
        text: evidence, cause and remedy, in a sentence or two.
    """

    name: str
    explains: frozenset[str]
    text: str


def box_convention(c: Comparison) -> Opinion | None:
    """The stores write their boxes in other layouts or units, or one of them exclusive."""
    conventions = a, b = c.conventions
    texts = []
    if a.layout != b.layout:
        texts.append(
            f"A's boxes are {_LAYOUTS[a.layout]} and B's are {_LAYOUTS[b.layout]}: convert one"
        )
    if a.unit != b.unit:
        store, unit = ("A", a.unit) if b.unit == "original" else ("B", b.unit)
        texts.append(f"{store}'s boxes are {_UNITS[unit]}")
    for store, other, convention in zip(STORES, reversed(STORES), conventions, strict=True):
        if convention.exclusive and convention.layout != "xywh":
            texts.append(
                f"x2 and y2 of {store}'s boxes are one pixel larger than {other}'s: {store}'s are "
                f"exclusive, {other}'s include the last column and row, as VMB's do. Take 1 from "
                f"{store}'s x2 and y2"
            )
    if not texts:
        return None
    evidence = f"So read, {c.counts.agreement:.1%} of the boxes match."
    return Opinion(
        "box_convention", frozenset({"conventions", "boxes"}), f"{'. '.join(texts)}. {evidence}"
    )


def batch_clipping(c: Comparison) -> Opinion | None:
    """Boxes of a store were clipped to the padded size of a batch with larger images."""
    count = sum(c.boxes.past_padding)
    if not count or c.boxes.past_any_padding or c.counts.agreement < 0.5:
        return None
    stores = " and ".join(s for s, n in zip(STORES, c.boxes.past_padding, strict=True) if n)
    return Opinion(
        "batch_clipping",
        _ALL,
        f"{counted(count, 'box')} of {stores} beyond the image's own padding and without an equal "
        "in the other store: in VMB only boxes of a batch with a larger image can end there. "
        f"{stores} was extracted in batches of mixed sizes. Extract both with batch size 1, or "
        "with the same batches.",
    )


def image_clipping(c: Comparison) -> Opinion | None:
    """One store clips its boxes to the image, the other to the padded image."""
    if c.boxes.past_any_padding or c.counts.agreement < 0.5:
        return None
    for clipped, other in ((0, 1), (1, 0)):
        past, ends = c.boxes.past_image[other], c.boxes.at_image[clipped]
        none_past = not c.boxes.past_image[clipped] and not c.boxes.past_padding[clipped]
        if past >= 3 and none_past and ends >= 0.5 * past:
            return Opinion(
                "image_clipping",
                _ALL,
                f"{past} boxes of {STORES[other]} end past their image, in its padding, and none "
                f"of {STORES[clipped]}, but {ends} end with it: {STORES[clipped]}'s were clipped "
                "to the image. If that was done when they were stored, as in lxmert_tsv and hdf5, "
                "features are the same. If it was done before the features were pooled, as in "
                "other detectors, features at the right and bottom border differ, too.",
            )
    return None


def num_features(c: Comparison) -> Opinion | None:
    """One store has more regions of an image; the shorter list is part of the longer."""
    counts = c.counts
    if not counts.lengths_differ or (c.by_row and not _features_agree(c)):
        return None
    if counts.shorter_matched < _NEARLY_ALL * counts.shorter_regions:
        return None
    a, b = (_interval(store.fewest, store.most) for store in c.stores)
    fixed = all(store.fewest == store.most for store in c.stores)
    cause = (
        "another num_features. Extract both with the same, or cut the longer"
        if fixed
        else "an adaptive number of regions, or a confidence threshold that drops the others"
    )
    return Opinion(
        "num_features",
        _COUNTS,
        f"A has {a} regions an image and B {b}; where the numbers differ "
        f"({counted(counts.lengths_differ, 'image')}), those of the shorter are regions of the "
        f"longer ({counts.shorter_matched} of {counts.shorter_regions} matched): {cause}.",
    )


def confidence_threshold(c: Comparison) -> Opinion | None:
    """Fewer regions of one store count, and these are in both."""
    counts = c.counts
    off = counts.num_boxes[0] - counts.num_boxes[1]
    if (
        min(counts.shares) >= c.settings.matched  # a threshold chooses others to fill up, too
        or not counts.confident_differ
        or counts.lengths_differ
        or abs(off) != counts.num_boxes_off
        or counts.confident_matched < _NEARLY_ALL * counts.confident_regions
        or counts.confident_regions < FEW
    ):
        return None
    fewer = STORES[0] if off < 0 else STORES[1]
    return Opinion(
        "confidence_threshold",
        _COUNTS,
        f"{fewer} has the smaller num_boxes in {counted(counts.confident_differ, 'image')} "
        f"({counts.num_boxes[0]} in A, {counts.num_boxes[1]} in B in all), and "
        f"{counts.confident_matched} of the {counts.confident_regions} regions that count are the "
        f"other's too: {fewer} has the higher confidence_threshold. The rows past num_boxes only "
        "fill up.",
    )


def background(c: Comparison) -> Opinion | None:
    """The background takes part in one store, so that its classes are one more."""
    classes = c.classes
    for store, other in ((0, 1), (1, 0)):
        name, evidence = STORES[store], []
        more, likely = classes.one_more[store], classes.one_more_or_0[store]
        few = classes.compared < FEW or more < 0.5 * classes.compared
        if not few and likely >= 0.99 * classes.compared:
            evidence.append(f"{more} of {classes.compared} classes of {name} are one more")
        if classes.background_column[store] and not classes.background_column[other]:
            images = counted(classes.background_column[store], "image")
            evidence.append(f"cls_prob of {name} has one column more in {images}")
        if evidence:
            return Opinion(
                "background",
                frozenset({"classes", "cls_prob"}),
                f"{' and '.join(evidence)}: in {name} the background counts as class 0, in "
                f"{STORES[other]} it doesn't. Extract both alike, or take 1 from {name}'s classes "
                "and leave out column 0.",
            )
    return None


def layer(c: Comparison) -> Opinion | None:
    """The same regions and classes, but the features of another layer."""
    if c.by_row or not _boxes_agree(c) or not _features_unrelated(c):
        return None
    if c.classes.compared >= FEW and not _classes_agree(c):
        return None
    if c.features.incomparable:
        a, b = (
            " and ".join(map(str, sorted({dimension for _, dimension in store.kinds})))
            for store in c.stores
        )
        evidence = f"features have {a} numbers in A and {b} in B"
    else:
        a, b = (f"{store.zeros_share:.0%}" for store in c.stores)
        cosine = 1 - c.features.angles.quantile(0.5)
        evidence = f"features have a median cosine of {cosine:.2f} and {a} and {b} zeros"
    classes = f"{c.classes.compared} classes" if c.classes.compared else "no classes to compare"
    return Opinion(
        "layer",
        frozenset({"features", "dimension"}),
        f"{c.counts.agreement:.1%} of the boxes match ({classes}), but the {evidence}: another "
        "layer of the same network, fc6 and fc7 for example; without classes, other weights behind "
        "the proposals can't be ruled out. Extract both with one feature_name.",
    )


def rounding(c: Comparison) -> Opinion | None:
    """The features of one store were kept in float16 or bfloat16."""
    errors = c.features.errors
    if len(errors) < FEW:
        return None
    for name, torch_dtype in LOWER_PRECISION.items():
        rounded = [s for s, store in zip(STORES, c.stores, strict=True) if name in store.precisions]
        unit = torch.finfo(torch_dtype).eps / 2  # the largest relative error of rounding
        fits = unit / 8 <= errors.quantile(0.5) and errors.quantile(0.9) <= 1.05 * unit
        if len(rounded) == 1 and fits:
            return Opinion(
                "rounding",
                frozenset({"features"}),
                f"All of {rounded[0]}'s features are {name} numbers, and the median error, "
                f"{errors.quantile(0.5):.1e}, is what rounding to {name} makes: {rounded[0]} was "
                f"stored in {name}. That is harmless for most uses.",
            )
    return None


def precision(c: Comparison) -> Opinion | None:
    """All features are slightly off, in any direction, and no other cause tells why."""
    if len(c.features.errors) < FEW or c.counts.agreement < 0.8 or rounding(c) or image_clipping(c):
        return None
    low, error = c.features.errors.quantile(0.1), c.features.errors.quantile(0.5)
    scaled = c.features.angles.quantile(0.5) < 0.1 * error**2 / 2
    if not 1e-4 <= error <= 3e-2 or low < error / 10 or scaled:
        return None
    return Opinion(
        "precision",
        _ALL,
        f"Nearly all features are off by about {error:.1e} (a tenth by less than {low:.1e}): "
        "arithmetic of lower precision (TF32, float16 and bfloat16 give 1e-4 to 1e-2; float32 "
        "below 1e-4), or slightly other pixels, of another JPEG decoder or resizing. Extract both "
        "in float32 with TF32 off.",
    )


def weights(c: Comparison) -> Opinion | None:
    """Most boxes have no match, or classes and features of matched boxes are unrelated."""
    counts, classes = c.counts, c.classes
    if c.by_row or counts.fewer < FEW or (counts.matched >= FEW and not _features_unrelated(c)):
        return None
    if counts.agreement < 0.5:
        evidence = f"Only {counts.agreement:.1%} of the boxes match, in whatever convention"
    elif _boxes_agree(c) and classes.compared >= FEW and not _classes_agree(c):
        evidence = f"The boxes match, but only {classes.same} of {classes.compared} classes"
    else:
        return None
    rule = "" if c.names.rule == EXACT else f", paired by {c.names.rule}"
    return Opinion(
        "weights",
        _ALL,
        f"{evidence}, and features don't either: other weights or another model, or other images "
        f"under the names{rule}. Compare the checkpoints, and one image's boxes by eye.",
    )


def order(c: Comparison) -> Opinion | None:
    """The same regions in another order."""
    same = min(c.counts.shares) >= c.settings.matched and not c.counts.lengths_differ
    if not same or not c.boxes.reordered:
        return None
    return Opinion(
        "order",
        frozenset(),
        f"The same regions come in another order in {c.boxes.reordered} of "
        f"{counted(len(c.compared), 'image')}: sorted otherwise or, where they are few, regions of "
        "nearly equal confidence swapped under rounding. Compare by box and not by row.",
    )


CAUSES = (
    box_convention,
    batch_clipping,
    image_clipping,
    num_features,
    confidence_threshold,
    background,
    layer,
    rounding,
    precision,
    weights,
    order,
)


def opinions(c: Comparison) -> list[Opinion]:
    """What probably made the difference; several may hold at once."""
    return [opinion for cause in CAUSES if (opinion := cause(c))]


def unexplained(found: Collection[Reason], causes: Collection[Opinion]) -> list[str]:
    """The kinds of differences that no cause accounts for, in the order of the reasons."""
    explained = _SELF_EXPLANATORY.union(*(opinion.explains for opinion in causes))
    return list(dict.fromkeys(reason.kind for reason in found if reason.kind not in explained))


def _boxes_agree(c: Comparison) -> bool:
    return c.counts.matched >= FEW and c.counts.agreement >= 0.9


def _classes_agree(c: Comparison) -> bool:
    """Whether nine of ten classes are the same, or all but for the background."""
    return max(c.classes.same, *c.classes.one_more) >= 0.9 * c.classes.compared


def _features_agree(c: Comparison) -> bool:
    """Whether nine of ten matched regions, and ten or more, have the same features."""
    errors = c.features.errors
    return len(errors) >= FEW and errors.quantile(0.9) <= c.settings.tolerance


def _features_unrelated(c: Comparison) -> bool:
    """Whether most features point in other directions, or have another dimension."""
    angles = c.features.angles
    return c.features.incomparable > 0 or (len(angles) >= FEW and angles.quantile(0.5) > 0.1)


def _interval(low: int | None, high: int | None) -> str:
    return f"{low}" if low == high else f"{low} to {high}"
