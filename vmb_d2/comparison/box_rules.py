"""Opinions on differences in how boxes are written, and in which boxes there are."""

from __future__ import annotations

from ..data.preprocessing import LONG_SIDE, SHORT_SIDE
from .compare import Comparison
from .conventions import Convention
from .diagnosis import ALL, FEW, STORES, Opinion, features_agree
from .verdict import counted

_WRITTEN = frozenset({"conventions", "boxes"})
_LAYOUTS = {"xywh": "x, y, width, height", "yxyx": "y1, x1, y2, x2", "xyxy": "x1, y1, x2, y2"}


def image_size(c: Comparison) -> Opinion | None:
    """The stores give other sizes for some images."""
    if not c.other_sizes:
        return None
    example = c.compared[c.first_other_size][0]
    explains = {"image_size"} | (ALL if 2 * c.other_sizes > len(c.compared) else set())
    return Opinion(
        "image_size",
        frozenset(explains),
        f"{c.other_sizes} of {counted(len(c.compared), 'image')} have another width or height in "
        f"B than in A ({example}): other images under the same names, or resized or rotated ones. "
        "Extract both from the same files.",
    )


def _conventions(c: Comparison) -> tuple[tuple[Convention, Convention], str] | None:
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
    return Opinion(
        "box_layout",
        _WRITTEN,
        f"A's boxes are {_LAYOUTS[a.layout]} and B's are {_LAYOUTS[b.layout]} ({evidence}). "
        "Convert one.",
    )


def box_unit(c: Comparison) -> Opinion | None:
    """One store has its boxes in network pixels, normalised, or times another ratio."""
    found = _conventions(c)
    if not found or found[0][0].unit == found[0][1].unit:
        return None
    conventions, evidence = found
    if conventions[1].unit == "scaled":
        (x1, y1), (x2, y2) = c.boxes.ratios
        return Opinion(
            "box_unit",
            _WRITTEN,
            f"B's boxes are A's times {x1:.3g} to {x2:.3g} in x and {y1:.3g} to {y2:.3g} in y, one "
            f"ratio an image ({evidence}): they are in pixels of an image resized in another way. "
            "Divide them by their image's ratio.",
        )
    texts = []
    for store, convention in zip(STORES, conventions, strict=True):
        if convention.unit == "network":
            texts.append(
                f"{store}'s boxes are in network pixels: divide them by {SHORT_SIDE} / short side, "
                f"or {LONG_SIDE} / long side where that is less"
            )
        elif convention.unit == "normalised":
            texts.append(
                f"{store}'s boxes are normalised: multiply them by the image's width and height"
            )
    return Opinion("box_unit", _WRITTEN, f"{'; '.join(texts)}. ({evidence.capitalize()}.)")


def box_ends(c: Comparison) -> Opinion | None:
    """The boxes of one store are exclusive, those of the other inclusive."""
    found = _conventions(c)
    if not found:
        return None
    conventions, evidence = found
    for store, other, convention in zip(STORES, reversed(STORES), conventions, strict=True):
        if convention.exclusive and convention.layout != "xywh":
            return Opinion(
                "box_ends",
                _WRITTEN,
                f"x2 and y2 of {store}'s boxes are one pixel larger than {other}'s ({evidence}): "
                f"{store}'s are exclusive, {other}'s include the last column and row, as VMB's do. "
                f"Take 1 from {store}'s x2 and y2.",
            )
    return None


def batch_clipping(c: Comparison) -> Opinion | None:
    """Boxes of a store were clipped to the padded size of a batch with larger images."""
    count = sum(c.boxes.past_padding)
    if not count or c.boxes.past_all_padding or c.counts.agreement < 0.5:
        return None
    images = counted(c.boxes.past_padding_images, "image")
    stores = " and ".join(s for s, n in zip(STORES, c.boxes.past_padding, strict=True) if n)
    return Opinion(
        "batch_clipping",
        ALL,
        f"{counted(count, 'box')} of {stores}, in {images}, beyond the image's own padding and "
        "without an equal in the other store: in VMB only boxes of a batch with a larger image "
        f"can end there. {stores} was extracted in batches of mixed sizes. Extract both with batch "
        "size 1, or with the same batches.",
    )


def image_clipping(c: Comparison) -> Opinion | None:
    """One store clips its boxes to the image, the other to the padded image."""
    if c.boxes.past_all_padding or c.counts.agreement < 0.5:
        return None
    for store, other in ((0, 1), (1, 0)):
        past = c.boxes.past_image[other]
        none = not c.boxes.past_image[store] and not c.boxes.past_padding[store]
        ends = c.boxes.at_image[store]
        if past >= 3 and none and ends >= 0.5 * past:
            return Opinion(
                "image_clipping",
                ALL,
                f"{past} boxes of {STORES[other]} end past their image, in its padding, and none "
                f"of {STORES[store]}, but {ends} end with it: {STORES[store]}'s were clipped to "
                "the image. Either when they were stored (lxmert_tsv and hdf5 have them so, and "
                "output.clip_boxes=true): then features are the same. Or before the features were "
                "pooled, as other detectors do and VMB doesn't: then features at the right and "
                "bottom border differ, too.",
            )
    return None


def selection(c: Comparison) -> Opinion | None:
    """Other regions were chosen of the same ones. Only for want of a more precise opinion."""
    if min(c.counts.shares) >= c.settings.matched or c.by_row or not features_agree(c):
        return None
    return Opinion(
        "selection",
        frozenset({"boxes", "num_boxes"}),
        f"{c.counts.matched} matched regions have the same features, the others "
        f"({c.counts.regions[0] - c.counts.matched} of A, {c.counts.regions[1] - c.counts.matched} "
        "of B) have no match: the same network, but other regions chosen. A few: regions of nearly "
        "equal confidence, swapped under rounding. Many: compare the options of both extractions.",
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


def wholesale(c: Comparison) -> bool:
    """Whether most boxes have no match, and there are enough to say so."""
    return not c.by_row and c.counts.fewer >= FEW and c.counts.agreement < 0.5
