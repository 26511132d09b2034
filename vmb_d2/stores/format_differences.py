"""What becomes of an image on its way from one format to another."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import numpy as np

from ..structures.regions import RegionFeatures
from . import Format
from .uniter import BACKGROUND, BOXES

_ALL_BUT_BOXES = {
    "num_boxes",
    "objects",
    "objects_conf",
    "confidence",
    "attrs_id",
    "attrs_conf",
    "cls_prob",
    "class_logits",
    "further",
    "extra",
}
# The fields of RegionFeatures that a format has no place for.
NO_PLACE = {
    "mmf": {"confidence", "further"},
    "npz": {"confidence", "further"},
    "lmdb": {"confidence", "further"},
    "lxmert_tsv": {"num_boxes", "confidence", "cls_prob", "class_logits", "further", "extra"},
    "butd_tsv": _ALL_BUT_BOXES,
    "hdf5": {"confidence", "cls_prob", "further", "extra"},
    "vilbert": _ALL_BUT_BOXES,
    "openvqa": {"confidence", "further"},
    "oscar": {
        "num_boxes",
        "confidence",
        "attrs_id",
        "attrs_conf",
        "cls_prob",
        "class_logits",
        "further",
        "extra",
    },
    "uniter": {
        "attrs_id",
        "attrs_conf",
        "class_logits",
        "image_width",
        "image_height",
        "further",
        "extra",
    },
}
# What it has a place for all the same: keys of ``extra``, and the fields that each stands in for.
KEPT_KEYS = {"uniter": {BOXES: ("bbox", "image_width", "image_height"), BACKGROUND: ()}}
# The fields that a format needs: it writes zeros, or what INSTEAD says, where an image lacks them.
NEEDED = {
    "mmf": (),
    "npz": (),
    "lmdb": (),
    "lxmert_tsv": (
        "bbox",
        "objects",
        "objects_conf",
        "attrs_id",
        "attrs_conf",
        "image_width",
        "image_height",
    ),
    "butd_tsv": ("bbox", "image_width", "image_height"),
    "hdf5": ("attrs_id", "attrs_conf"),
    "vilbert": (),
    "openvqa": (),
    "oscar": ("bbox", "objects", "image_width", "image_height"),
    "uniter": ("bbox", "image_width", "image_height", "confidence", "cls_prob"),
}
_NO_BOXES = "without norm_bb"
INSTEAD = {
    "oscar": {"objects": "with empty class names"},
    "uniter": {
        "bbox": _NO_BOXES,
        "image_width": _NO_BOXES,
        "image_height": _NO_BOXES,
        "confidence": "with objects_conf of the first num_boxes regions as conf, 0 for the others "
        "(without conf where there is no objects_conf)",
        "cls_prob": "without soft_labels, which UNITER's pre-training needs",
    },
}

FIELDS = (
    "bbox",
    "num_boxes",
    "objects",
    "objects_conf",
    "confidence",
    "cls_prob",
    "class_logits",
    "attrs_id",
    "attrs_conf",
    "image_width",
    "image_height",
)

logger = logging.getLogger(__name__)


class Differences:
    """Says what a format has no place for and what it lacks, of each key once.

    Args:
        target: the format to write.
        dtype: of the features to write.
        clips: whether boxes are to be clipped.
    """

    def __init__(self, target: Format, dtype: np.dtype, clips: bool):
        self.target = target
        self.dtype = dtype
        self.clips = clips
        self._said: set[tuple[str, ...]] = set()

    def log(self, images: Iterable[tuple[Format, RegionFeatures]]) -> None:
        """Log what is new in these images, each with the format that it was read from."""
        kept_keys = KEPT_KEYS.get(self.target.name, {})
        homeless = []
        for source, regions in images:
            homeless += [
                label
                for label, field in _contents(regions).items()
                if field in NO_PLACE[self.target.name]
                and label not in kept_keys
                and self._is_new(label)
            ]
            there = {f for key, fields in kept_keys.items() if key in regions.extra for f in fields}
            lacking: dict[str, list[str]] = {}  # by what is written instead
            for field in NEEDED[self.target.name]:
                lacks = getattr(regions, field) is None and field not in there
                if lacks and self._is_new(source.name, field):
                    instead = INSTEAD.get(self.target.name, {}).get(field, "as zeros")
                    lacking.setdefault(instead, []).append(field)
            for instead, fields in lacking.items():
                logger.info("%s has no %s: written %s", source.name, ", ".join(fields), instead)
            unclear = regions.bbox is not None and None in (
                regions.image_width,
                regions.image_height,
            )
            if self.clips and unclear and self._is_new(source.name, "clips"):
                words = "%s has images of unknown size: their boxes can't be clipped"
                logger.warning(words, source.name)
            dtype = regions.features.dtype
            if dtype.itemsize > self.dtype.itemsize and self._is_new("features", dtype.name):
                logger.info("features of %s are written as %s", dtype, self.dtype)
        if homeless:
            logger.info("%s has no place for %s", self.target.name, ", ".join(homeless))

    def _is_new(self, *what: str) -> bool:
        new = what not in self._said
        self._said.add(what)
        return new


def _contents(regions: RegionFeatures) -> dict[str, str]:
    """What an image holds beyond its features: a label of each thing, and the field it is in."""
    fields = {key: key for key in FIELDS if getattr(regions, key) is not None}
    if regions.num_boxes == len(regions):  # says nothing beyond the features' shape
        del fields["num_boxes"]
    further = {f"feature {name}": "further" for name in regions.further}
    return {**fields, **further, **dict.fromkeys(regions.extra, "extra")}
