"""The causes that make stores different, each recognised by the figures of a comparison."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from ..config.input_step import MMF_INPUT
from .alignment import Convention
from .compare import Comparison, Reason, counted
from .names import EXACT

STORES = ("A", "B")
FEW = 10  # so few matched regions are no evidence
_FLOAT16_ROUNDING = 2**-11  # the largest relative error of rounding to float16

_ALL = frozenset({"boxes", "features", "classes", "cls_prob", "num_boxes", "dimension"})
_SELF_EXPLANATORY = frozenset({"images", "image_size"})
_FARTHEST = MMF_INPUT.padded_size(MMF_INPUT.long_side, MMF_INPUT.long_side)[0]
_LAYOUTS = {"xywh": "x, y, width, height", "yxyx": "y1, x1, y2, x2", "xyxy": "x1, y1, x2, y2"}
_UNITS = {
    "original": "in original pixels",
    "network": f"in network pixels (divide by {MMF_INPUT.short_side} / short side, or "
    f"{MMF_INPUT.long_side} / long side where that is less)",
    "normalised": "normalised (multiply by the image's width and height)",
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
    a, b = c.conventions
    if a == b:
        return None
    text = f"A's boxes are {_described(a)}; B's boxes are {_described(b)}. "
    if c.agreement < 0.5:  # so the manifests say, and there is more to it
        return Opinion("box_convention", frozenset({"conventions"}), f"{text}Convert one.")
    return Opinion(
        "box_convention",
        frozenset({"conventions", "boxes"}),
        f"{text}So read, {c.agreement:.1%} of the boxes match: convert one.",
    )


def _described(convention: Convention) -> str:
    text = f"{_LAYOUTS[convention.layout]} {_UNITS[convention.unit]}"
    if not convention.exclusive:
        return text
    if convention.layout == "xywh":
        return f"{text}, with width = x2 - x1 + 1"
    return f"{text}, exclusive (x2 and y2 one pixel larger than VMB's)"


def batch_clipping(c: Comparison) -> Opinion | None:
    """Boxes of a store were clipped to the padded size of a batch with larger images."""
    count = sum(c.boxes.past_padding)
    if not count or c.agreement < 0.5 or c.boxes.farthest > _FARTHEST:
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


def num_features(c: Comparison) -> Opinion | None:
    """One store has more regions of an image; the shorter list is part of the longer."""
    if not c.lengths_differ or c.agreement < 0.95 or (c.by_row and _features_unrelated(c)):
        return None
    a, b = (store.regions_an_image for store in c.stores)
    return Opinion(
        "num_features",
        frozenset({"boxes", "num_boxes"}),
        f"A has {a} regions an image and B {b}, other numbers in "
        f"{counted(c.lengths_differ, 'image')}. Those of the shorter are regions of the longer: "
        "another num_features, or an adaptive number. Extract both with the same, or cut the "
        "longer.",
    )


def background(c: Comparison) -> Opinion | None:
    """The background takes part in one store, so that its classes are one more."""
    classes = c.classes
    for store, other in ((0, 1), (1, 0)):
        name, evidence = STORES[store], []
        more, few = classes.one_more[store], classes.compared < FEW
        if not few and more >= 0.99 * classes.compared and classes.same < 0.5 * classes.compared:
            evidence.append(f"{more} of {classes.compared} classes of {name} are one more, or 0")
        if c.stores[store].columns == {columns + 1 for columns in c.stores[other].columns} != set():
            evidence.append(f"cls_prob of {name} has one column more")
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
    evidence = "have other dimensions"
    if not c.features.incomparable:
        evidence = f"have a median cosine of {1 - c.features.angles.quantile(0.5):.2f}"
    return Opinion(
        "layer",
        frozenset({"features", "dimension"}),
        f"{c.agreement:.1%} of the boxes match ({c.classes.compared} classes to compare), "
        f"but the features {evidence}: another layer of the same network, fc6 and fc7 for example; "
        "without classes, other weights behind the proposals can't be ruled out. Extract both with "
        "one feature_name.",
    )


def precision(c: Comparison) -> Opinion | None:
    """All features are slightly off, in any direction."""
    errors = c.features.errors
    if len(errors) < FEW or c.agreement < 0.8:
        return None
    low, error, high = (errors.quantile(share) for share in (0.1, 0.5, 0.9))
    rounded = [s for s, store in zip(STORES, c.stores, strict=True) if store.is_float16]
    if len(rounded) == 1 and error >= _FLOAT16_ROUNDING / 8 and high <= 1.05 * _FLOAT16_ROUNDING:
        cause = (
            f"{rounded[0]}'s are float16 numbers, and that is the error of such rounding. It is "
            "harmless for most uses."
        )
    else:
        scaled = c.features.angles.quantile(0.5) < 0.1 * error**2 / 2
        if not 1e-4 <= error <= 3e-2 or low < error / 10 or scaled:
            return None
        cause = (
            "arithmetic of lower precision (TF32, float16 and bfloat16 give 1e-4 to 1e-2), or "
            "slightly other pixels, of another JPEG decoder or resizing. Extract both in float32 "
            "with TF32 off."
        )
    return Opinion("precision", _ALL, f"Nearly all features are off by about {error:.1e}: {cause}")


def weights(c: Comparison) -> Opinion | None:
    """Most boxes have no match, or classes and features of matched boxes are unrelated."""
    classes = c.classes
    if c.by_row or c.fewer < FEW or (c.matched >= FEW and not _features_unrelated(c)):
        return None
    if c.agreement < 0.5:
        evidence = f"Only {c.agreement:.1%} of the boxes match, in whatever convention"
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
    same = min(c.shares) >= c.settings.matched and not c.lengths_differ
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
    num_features,
    background,
    layer,
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
    return c.matched >= FEW and c.agreement >= 0.9


def _classes_agree(c: Comparison) -> bool:
    """Whether nine of ten classes are the same, or all but for the background."""
    return max(c.classes.same, *c.classes.one_more) >= 0.9 * c.classes.compared


def _features_unrelated(c: Comparison) -> bool:
    """Whether most features point in other directions, or have another dimension."""
    angles = c.features.angles
    return c.features.incomparable > 0 or (len(angles) >= FEW and angles.quantile(0.5) > 0.1)
