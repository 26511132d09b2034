"""UNITER's npz files: one an image, all of it float16."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np

from ..structures.regions import RegionFeatures
from .fields import regions_of
from .npz import NpzReader, NpzWriter

# Keys of RegionFeatures.extra for what a file holds that no field has a place for.
BOXES = "norm_bb"
BACKGROUND = "background_prob"

_NO_BOXES = "without norm_bb"


class UniterWriter(NpzWriter):
    """Writes a file an image, not compressed. What the image lacks is left out.

    ``class_names`` tell whether the background is column 0 of ``cls_prob``.
    """

    only_dtype = "float16"
    keeps = frozenset({"bbox", "num_boxes", "objects", "objects_conf", "confidence", "cls_prob"})
    without: ClassVar = {
        "bbox": _NO_BOXES,
        "image_width": _NO_BOXES,
        "image_height": _NO_BOXES,
        "confidence": "with objects_conf of the first num_boxes regions as conf, 0 for the others "
        "(without conf where there is no objects_conf)",
        "cls_prob": "without soft_labels, which UNITER's pre-training needs",
    }

    def arrays(self, name: str, regions: RegionFeatures) -> dict[str, Any]:
        boxes = regions.normalized_boxes()
        if boxes is None:
            boxes = regions.extra.get(BOXES)
        confidence = _confidence(regions)
        arrays = {
            "norm_bb": boxes,
            "features": self.features_of(regions),
            "conf": None if confidence is None else confidence[:, None],
            "soft_labels": self._soft_labels(regions),
        }
        return {k: None if a is None else np.asarray(a, np.float16) for k, a in arrays.items()}

    def _soft_labels(self, regions: RegionFeatures) -> np.ndarray | None:
        probabilities = regions.cls_prob
        if probabilities is None or self.class_names.with_background:
            return probabilities
        background = regions.extra.get(BACKGROUND)
        if background is None:
            background = np.maximum(1 - probabilities.sum(axis=1, dtype=np.float32), 0)
        return np.concatenate([background[:, None], probabilities], axis=1)


def _confidence(regions: RegionFeatures) -> np.ndarray | None:
    """The confidence; where it is unknown, ``objects_conf`` of the first ``num_boxes``, else 0."""
    if regions.confidence is not None or regions.objects_conf is None:
        return regions.confidence
    return np.where(np.arange(len(regions)) < regions.num_boxes, regions.objects_conf, 0)


class UniterReader(NpzReader):
    """Reads such files, compressed ones too, whoever wrote them; only ``features`` has to be there.

    A file doesn't have the image's size, so there are no boxes in pixels: ``extra`` has them
    as ``norm_bb``, and the background's probability as ``background_prob``, both as stored.
    """

    format_name = "uniter"

    def regions(self, name: str, values: dict[str, Any]) -> RegionFeatures:
        features = values.pop("features", None)
        soft_labels, conf = values.pop("soft_labels", None), values.pop("conf", None)
        known: dict[str, Any] = {}
        confidence = None
        if conf is not None:
            confidence = np.asarray(conf, np.float32).reshape(-1)
            known["num_boxes"] = int((confidence > 0).sum())
        if soft_labels is not None:
            known["cls_prob"] = np.asarray(soft_labels, np.float32)[:, 1:]
            known["objects"] = known["cls_prob"].argmax(axis=1)
            values[BACKGROUND] = soft_labels[:, 0]
        return dataclasses.replace(regions_of(features, known, confidence), extra=values)
