"""UNITER's npz files: one an image, all of it float16."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..errors import StoreError
from ..structures.class_names import NO_NAMES, ClassNames
from ..structures.regions import RegionFeatures
from .checks import checked
from .npz import NpzReader, NpzWriter

# In RegionFeatures.extra: what a file holds that the other fields have no place for.
BOXES = "norm_bb"
BACKGROUND = "background_prob"


class UniterWriter(NpzWriter):
    """Writes a file an image, not compressed. What the image lacks is left out.

    Args:
        class_names: they say whether the background is column 0 of ``cls_prob``.
    """

    only_dtype = "float16"
    takes_class_names = True

    def __init__(
        self, path: str | Path, dtype: str = "float32", class_names: ClassNames = NO_NAMES
    ):
        super().__init__(path, dtype)
        self._with_background = class_names.with_background

    def arrays(self, name: str, regions: RegionFeatures) -> dict[str, Any]:
        boxes = regions.normalized_boxes()
        if boxes is None:
            boxes = _of_uniter(regions, BOXES, (len(regions), 6))
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
        if probabilities is None or self._with_background:
            return probabilities
        background = _of_uniter(regions, BACKGROUND, (len(regions),))
        if background is None:
            background = np.maximum(1 - probabilities.sum(axis=1, dtype=np.float32), 0)
        return np.concatenate([background[:, None], probabilities], axis=1)

    @staticmethod
    def bytes_per_image(regions: int, dimension: int, classes: int, itemsize: int) -> int:
        return regions * (dimension * 2 + (classes + 1) * 2 + 6 * 2 + 2) + 1000


def _confidence(regions: RegionFeatures) -> np.ndarray | None:
    """Where it isn't known, the classes' probabilities of the regions that count, else 0."""
    if regions.confidence is not None or regions.objects_conf is None:
        return regions.confidence
    counts = np.arange(len(regions)) < regions.num_boxes
    return np.where(counts, regions.objects_conf, 0)


def _of_uniter(regions: RegionFeatures, key: str, shape: tuple[int, ...]) -> np.ndarray | None:
    """What the reader below has put aside, if it was that."""
    value = regions.extra.get(key)
    return value if isinstance(value, np.ndarray) and value.shape == shape else None


class UniterReader(NpzReader):
    """Reads such files, compressed ones too, whoever wrote them; only ``features`` has to be there.

    A file doesn't say how large its image is, so there are no boxes in pixels: ``extra`` has them
    as ``norm_bb``, and the background's probability as ``background_prob``, both as stored.
    """

    def regions(self, name: str, values: dict[str, Any]) -> RegionFeatures:
        features = values.pop("features", None)
        if features is None:
            raise StoreError("has no features")
        confidence, soft_labels = values.pop("conf", None), values.pop("soft_labels", None)
        known: dict[str, Any] = {"num_boxes": len(features)}
        if confidence is not None:
            known["confidence"] = np.float32(confidence).reshape(-1)
            known["num_boxes"] = int((known["confidence"] > 0).sum())
        if soft_labels is not None:
            if np.ndim(soft_labels) != 2 or np.shape(soft_labels)[1] < 2:
                raise StoreError(f"soft_labels of shape {np.shape(soft_labels)}")
            known["cls_prob"] = np.float32(soft_labels)[:, 1:]
            known["objects"] = known["cls_prob"].argmax(axis=1)
            values[BACKGROUND] = soft_labels[:, 0]
        unknown = ("bbox", "objects", "cls_prob", "image_width", "image_height")
        known = checked({"features": features, **dict.fromkeys(unknown), **known})
        return RegionFeatures(**known, extra=values)
