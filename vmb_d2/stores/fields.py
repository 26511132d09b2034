"""RegionFeatures as a dict of its fields, as MMF has it; checked when it is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import StoreError, first_line
from ..structures.regions import RegionFeatures

_NUMBERS = ("num_boxes", "image_width", "image_height")
# 2-D arrays; the others have a value a region.
_TABLES = ("bbox", "cls_prob", "class_logits", "attribute_ids", "attribute_scores")

_REQUIRED = ("bbox", "num_boxes", "objects", "cls_prob", "image_width", "image_height")
_OPTIONAL = (
    "class_logits",
    "objects_conf",
    "attrs_id",
    "attrs_conf",
    "attribute_ids",
    "attribute_scores",
)
#: The fields but for features, further and extra.
FIELDS = (*_REQUIRED, *_OPTIONAL, "confidence")
#: What :func:`info_of` keeps.
IN_INFO = frozenset({*_REQUIRED, *_OPTIONAL, "extra"})


def info_of(regions: RegionFeatures) -> dict[str, Any]:
    """Everything but the features, as MMF keys it; ``class_logits`` where boxes were given.

    ``objects_conf`` is left out where it is the maximum of ``cls_prob``.
    """
    info = {key: getattr(regions, key) for key in (*_REQUIRED, *_OPTIONAL)}
    info = {key: value for key, value in info.items() if key in _REQUIRED or value is not None}
    if regions.cls_prob is not None:
        highest = regions.cls_prob.max(axis=1, initial=0)
        if np.array_equal(info["objects_conf"], highest):
            del info["objects_conf"]
    return {**regions.extra, **info}


def regions_of(
    features: Any, info: Mapping[str, Any], confidence: np.ndarray | None = None
) -> RegionFeatures:
    """The inverse of :func:`info_of`. Keys that are missing become None, ``num_boxes`` all.

    Raises StoreError, without the file's name, where they are not the regions of one image.
    """
    features = _array("features", features)
    if features.ndim != 2:
        raise StoreError(f"features of shape {features.shape}, not (N, D)")
    # Tables first: their shapes explain what is wrong better than those of lists made of them.
    known: dict[str, Any] = {key: info.get(key) for key in (*_TABLES, *_REQUIRED, *_OPTIONAL)}
    extra = {key: value for key, value in info.items() if key not in known}
    known["confidence"] = confidence
    for key, value in known.items():
        if key in _NUMBERS and value is not None:
            known[key] = _number(key, value)
        elif value is not None:
            known[key] = array = _array(key, value)
            rank = 2 if key in _TABLES else 1
            is_whole = array.ndim == rank and len(array) == len(features)
            if not is_whole or (key == "bbox" and array.shape[1] != 4):
                raise StoreError(f"{key} of shape {array.shape} with {len(features)} features")
    ids, scores = known["attribute_ids"], known["attribute_scores"]
    if ids is not None and scores is not None and ids.shape != scores.shape:
        raise StoreError(f"attribute_ids of shape {ids.shape}, scores of shape {scores.shape}")
    if known["num_boxes"] is None:
        known["num_boxes"] = len(features)
    return RegionFeatures(features=features, **known, extra=extra)


def _array(key: str, value: Any) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype.kind not in "fiu":
        raise StoreError(f"{key} is no array of numbers")
    return array


def _number(key: str, value: Any) -> int:
    try:
        return int(np.asarray(value).item())
    except (ValueError, TypeError, OverflowError) as error:
        raise StoreError(f"{key} is no number ({first_line(error)})") from error
