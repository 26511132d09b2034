"""Opinions on what made two stores different, each with its evidence and what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ..data.preprocessing import LONG_SIDE, SHORT_SIDE
from .alignment import Conventions
from .compare import Comparison, Reason, counted
from .names import EXACT

STORES = ("A", "B")
FEW = 10  # fewer matched regions are no evidence
_NEARLY_ALL = 0.95
_ALL = frozenset({"boxes", "features", "classes", "cls_prob", "num_boxes", "image_size"})
_WRITTEN = frozenset({"conventions", "boxes"})
_FEATURES = frozenset({"features"})
_LAYOUTS = {"xywh": "x, y, width, height", "yxyx": "y1, x1, y2, x2", "xyxy": "x1, y1, x2, y2"}
# Format, half a unit in its last place.
_FORMATS = {"float16": 2.0**-11, "bfloat16": 2.0**-8}
_LOWER_PRECISION = (1e-4, 3e-2)


class Opinion(NamedTuple):
    """What probably made a difference.

    Attributes:
        name: of the rule.
        explains: the kinds of :class:`.Reason` that it can account for.
        text: evidence, cause and remedy, in a sentence or two.
    """

    name: str
    explains: frozenset[str]
    text: str


def opinions(comparison: Comparison) -> list[Opinion]:
    """What probably made the difference; several may hold at once."""
    found: dict[str, Opinion] = {}
    for rule, superseded_by in RULES:
        opinion = None if found.keys() & superseded_by else rule(comparison)
        if opinion:
            found[opinion.name] = opinion
    return list(found.values())


def unexplained(found: list[Reason], opinions: list[Opinion]) -> list[str]:
    """The kinds of differences that no opinion accounts for, in the order of the reasons."""
    explained = frozenset({"images"}).union(*(opinion.explains for opinion in opinions))
    return list(dict.fromkeys(r.kind for r in found if r.kind not in explained))


def _conventions(c: Comparison) -> tuple[Conventions, str] | None:
    """The conventions in which most images are written, and in how many of how many."""
    if not c.boxes.conventions:
        return None
    (found, count), total = c.boxes.conventions.most_common(1)[0], c.boxes.conventions.total()
    if 2 * count < total or found[0] == found[1]:
        return None
    return found, f"so read, they match in {count} of {counted(total, 'image')}"


def box_layout(c: Comparison) -> Opinion | None:
    """One store has its boxes' numbers in another order."""
    found = _conventions(c)
    if not found or found[0][0].layout == found[0][1].layout:
        return None
    (a, b), evidence = found
    text = (
        f"A's boxes are {_LAYOUTS[a.layout]} and B's are {_LAYOUTS[b.layout]} ({evidence}). "
        "Convert one."
    )
    return Opinion("box_layout", _WRITTEN, text)


def box_unit(c: Comparison) -> Opinion | None:
    """One store has its boxes in network pixels, or normalised."""
    found = _conventions(c)
    if not found or found[0][0].unit == found[0][1].unit:
        return None
    conventions, evidence = found
    remedies = {
        "network": f"in network pixels: divide them by {SHORT_SIDE} / short side, or {LONG_SIDE} / "
        "long side where that is less",
        "normalised": "normalised: multiply them by the image's width and height",
    }
    texts = [
        f"{store}'s boxes are {remedies[convention.unit]}"
        for store, convention in zip(STORES, conventions, strict=True)
        if convention.unit in remedies
    ]
    return Opinion("box_unit", _WRITTEN, f"{'; '.join(texts)}. ({evidence.capitalize()}.)")


def box_ends(c: Comparison) -> Opinion | None:
    """The boxes of one store are exclusive, those of the other inclusive."""
    found = _conventions(c)
    if not found:
        return None
    conventions, evidence = found
    for store, other, convention in zip(STORES, reversed(STORES), conventions, strict=True):
        if convention.exclusive and convention.layout != "xywh":
            text = (
                f"x2 and y2 of {store}'s boxes are one pixel larger than {other}'s ({evidence}): "
                f"{store}'s are exclusive, {other}'s include the last column and row, as VMB's do. "
                f"Take 1 from {store}'s x2 and y2."
            )
            return Opinion("box_ends", _WRITTEN, text)
    return None


def batch_clipping(c: Comparison) -> Opinion | None:
    """Boxes of a store were clipped to the padded size of a batch with larger images."""
    count = sum(c.boxes.past_padding)
    if not count or c.boxes.past_all_padding or c.counts.agreement < 0.5:
        return None
    stores = " and ".join(s for s, n in zip(STORES, c.boxes.past_padding, strict=True) if n)
    text = (
        f"{counted(count, 'box')} of {stores}, in {counted(c.boxes.past_padding_images, 'image')}, "
        "beyond the image's own padding and without an equal in the other store: in VMB only boxes "
        f"of a batch with a larger image can end there. {stores} was extracted in batches of mixed "
        "sizes. Extract both with batch size 1, or with the same batches."
    )
    return Opinion("batch_clipping", _ALL, text)


def image_clipping(c: Comparison) -> Opinion | None:
    """One store clips its boxes to the image, the other to the padded image."""
    if c.boxes.past_all_padding or c.counts.agreement < 0.5:
        return None
    for store, other in ((0, 1), (1, 0)):
        past = c.boxes.past_image[other]
        none = not c.boxes.past_image[store] and not c.boxes.past_padding[store]
        ends = c.boxes.at_image[store]
        if past >= 3 and none and ends >= 0.5 * past:
            text = (
                f"{past} boxes of {STORES[other]} end past their image, in its padding, and none "
                f"of {STORES[store]}, but {ends} end with it: {STORES[store]}'s were clipped to "
                "the image. Either when they were stored (lxmert_tsv and hdf5 clip them, other "
                "formats where it was asked for): then features are the same. Or before the "
                "features were pooled, as other detectors do and VMB doesn't: then features at the "
                "right and bottom border differ, too."
            )
            return Opinion("image_clipping", _ALL, text)
    return None


def num_features(c: Comparison) -> Opinion | None:
    """One store has more regions of an image; the shorter list is part of the longer."""
    counts = c.counts
    if not counts.lengths_differ or (c.by_row and not _features_agree(c)):
        return None
    if counts.shorter_matched < _NEARLY_ALL * counts.shorter_regions:
        return None
    lengths = [sorted(store.counts) for store in c.stores]
    a, b = (f"{x[0]}" if len(x) == 1 else f"{x[0]} to {x[-1]}" for x in lengths)
    part = "first rows" if counts.prefixes == counts.lengths_differ else "regions"
    if all(len(x) == 1 for x in lengths):
        cause = "another num_features. Extract both with the same, or cut the longer"
    else:
        cause = "an adaptive number of regions, or a confidence threshold that drops the others"
    text = (
        f"A has {a} regions an image and B {b}; where the numbers differ "
        f"({counted(counts.lengths_differ, 'image')}), those of the shorter are {part} of the "
        f"longer ({counts.shorter_matched} of {counts.shorter_regions} matched): {cause}."
    )
    return Opinion("num_features", frozenset({"boxes", "num_boxes"}), text)


def background(c: Comparison) -> Opinion | None:
    """The background takes part in one store, so that its classes are one more."""
    classes = c.classes
    for store, other in ((0, 1), (1, 0)):
        name, evidence = STORES[store], []
        more, likely = classes.one_more[store], classes.one_more_or_0[store]
        enough = classes.compared >= FEW and more >= 0.5 * classes.compared
        if enough and likely >= 0.99 * classes.compared:
            evidence.append(f"{more} of {classes.compared} classes of {name} are one more")
        if classes.background_column[store] and not classes.background_column[other]:
            images = counted(classes.background_column[store], "image")
            evidence.append(f"cls_prob of {name} has one column more in {images}")
        if evidence:
            text = (
                f"{' and '.join(evidence)}: in {name} the background counts as class 0 "
                f"(background=true), in {STORES[other]} it doesn't. Extract both alike, or take 1 "
                f"from {name}'s classes and leave out column 0."
            )
            return Opinion("background", frozenset({"classes", "cls_prob"}), text)
    return None


def layer(c: Comparison) -> Opinion | None:
    """The same regions, but the features of another layer, or of another model."""
    if c.by_row or c.counts.matched < FEW or c.counts.agreement < 0.9:
        return None
    if c.features.incomparable:
        explains = frozenset({"dimension"})
        a, b = (" and ".join(map(str, store.dimensions)) for store in c.stores)
        evidence = f"features have {a} numbers in A and {b} in B"
    elif _features_unrelated(c):
        explains = _FEATURES
        a, b = (f"{store.zeros_share:.0%}" for store in c.stores)
        cosine = 1 - c.features.angles.quantile(0.5)
        evidence = f"features have a median cosine of {cosine:.2f} and {a} and {b} 0s"
        negative = [s for s, store in zip(STORES, c.stores, strict=True) if store.negative]
        if len(negative) == 1:
            evidence += f", negative numbers in {negative[0]} only"
    else:
        return None
    agreement = f"{c.counts.agreement:.1%} of the boxes match"
    if c.classes.compared < FEW:
        text = (
            f"{agreement} but the {evidence}: another layer, or other weights behind the proposals "
            "(without classes it can't be told). Compare feature_name and the weights."
        )
        return Opinion("layer", explains, text)
    same = max(c.classes.same, *c.classes.one_more)
    classes = f"{same} of {c.classes.compared} classes"
    if same >= 0.9 * c.classes.compared:
        text = (
            f"{agreement} and {classes} agree, but the {evidence}: another layer of the same "
            "network, fc6 and fc7 for example. Extract both with one feature_name."
        )
        return Opinion("layer", explains, text)
    text = (
        f"{agreement}, but only {classes} agree and the {evidence}: the same boxes given to "
        "another model, or other weights behind the proposals. Compare the checkpoints."
    )
    return Opinion("weights", explains | {"classes", "cls_prob"}, text)


def rounding(c: Comparison) -> Opinion | None:
    """The features of one store were kept in a format of fewer bits."""
    errors = c.features.errors
    if len(errors) < FEW:
        return None
    for name, unit in _FORMATS.items():
        rounded = [s for s, store in zip(STORES, c.stores, strict=True) if getattr(store, name)]
        error = errors.quantile(0.5)
        if len(rounded) == 1 and unit / 8 <= error and errors.quantile(0.9) <= 1.05 * unit:
            text = (
                f"All of {rounded[0]}'s features are {name} numbers, and the median error, "
                f"{error:.1e}, is what rounding to {name} makes: {rounded[0]} was stored in "
                f"{name}. That is harmless for most uses."
            )
            return Opinion("rounding", _FEATURES, text)
    return None


def precision(c: Comparison) -> Opinion | None:
    """All features are slightly off, in any direction."""
    errors, angles = c.features.errors, c.features.angles
    if len(errors) < FEW or c.counts.agreement < 0.8:
        return None
    low, error = errors.quantile(0.1), errors.quantile(0.5)
    within = _LOWER_PRECISION[0] <= error <= _LOWER_PRECISION[1] and low >= error / 10
    if not within or angles.quantile(0.5) < 0.1 * error**2 / 2:
        return None
    text = (
        f"Nearly all features are off by about {error:.1e} (a tenth by less than {low:.1e}): "
        "arithmetic of lower precision (TF32, float16 and bfloat16 give 1e-4 to 1e-2; float32 "
        "below 1e-4), or slightly other pixels, of another JPEG decoder or resizing. Extract both "
        "in float32 with TF32 off."
    )
    return Opinion("precision", _ALL, text)


def weights(c: Comparison) -> Opinion | None:
    """Boxes differ wholesale, and so do features."""
    if c.by_row or c.counts.fewer < FEW or c.counts.agreement >= 0.5:
        return None
    if len(c.features.angles) >= FEW and not _features_unrelated(c):
        return None
    rule = "" if c.names.rule == EXACT else f", paired by {c.names.rule}"
    text = (
        f"Only {c.counts.agreement:.1%} of the boxes match, in whatever convention, and features "
        f"with them: other weights or another model, or other images under the names{rule}. "
        "Compare the checkpoints, and one image's boxes by eye."
    )
    return Opinion("weights", _ALL | {"dimension"}, text)


def order(c: Comparison) -> Opinion | None:
    """The same regions in another order."""
    same = min(c.shares) >= c.settings.matched and not c.counts.lengths_differ
    if not same or not c.boxes.reordered:
        return None
    text = (
        f"The same regions come in another order in {c.boxes.reordered} of "
        f"{counted(len(c.compared), 'image')}: sorted otherwise or, where they are few, regions of "
        "nearly equal confidence swapped under rounding. Compare by box and not by row."
    )
    return Opinion("order", frozenset(), text)


def _features_agree(c: Comparison) -> bool:
    """Whether nine of ten matched regions, and ten or more, have the same features."""
    errors = c.features.errors
    return len(errors) >= FEW and errors.quantile(0.9) <= c.settings.tolerance


def _features_unrelated(c: Comparison) -> bool:
    """Whether the features of most matched regions, ten or more, point in other directions."""
    angles = c.features.angles
    return len(angles) >= FEW and angles.quantile(0.5) > 0.1


# Each rule, and the names of opinions given before that make its own superfluous.
RULES: tuple[tuple[Callable[[Comparison], Opinion | None], frozenset[str]], ...] = (
    (box_layout, frozenset()),
    (box_unit, frozenset()),
    (box_ends, frozenset()),
    (batch_clipping, frozenset()),
    (image_clipping, frozenset()),
    (num_features, frozenset()),
    (background, frozenset()),
    (layer, frozenset()),
    (rounding, frozenset()),
    (precision, frozenset({"rounding", "image_clipping"})),
    (weights, frozenset()),
    (order, frozenset()),
)
