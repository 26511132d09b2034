"""RegionFeatures as a dict of its fields, as MMF has it; checked when it is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import StoreError, first_line
from ..structures.regions import RegionFeatures

# The fields but for features, further and extra.
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
_NUMBERS = ("num_boxes", "image_width", "image_height")
_COLUMNS = {"bbox": 4, "cls_prob": None, "class_logits": None}  # of 2-D arrays; None: any number

_REQUIRED = ("bbox", "num_boxes", "objects", "cls_prob", "image_width", "image_height")
_OPTIONAL = ("class_logits", "objects_conf", "attrs_id", "attrs_conf")
#: What :func:`info_of` keeps.
IN_INFO = frozenset({*_REQUIRED, *_OPTIONAL, "extra"})


def info_of(regions: RegionFeatures) -> dict[str, Any]:
    """Everything but the features, as MMF keys it; ``class_logits`` where boxes were given.

    ``objects_conf`` is left out where it is the maximum of ``cls_prob``.
    """
    info = {key: getattr(regions, key) for key in (*_REQUIRED, *_OPTIONAL)}
    for key in _OPTIONAL:
        if info[key] is None:
            del info[key]
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
    known: dict[str, Any] = {key: info.get(key) for key in (*_COLUMNS, *_REQUIRED, *_OPTIONAL)}
    extra = {key: value for key, value in info.items() if key not in known}
    known["confidence"] = confidence
    for key, value in known.items():
        if value is not None:
            number = key in _NUMBERS
            known[key] = _number(key, value) if number else _checked(key, value, len(features))
    if known["num_boxes"] is None:
        known["num_boxes"] = len(features)
    return RegionFeatures(features=features, **known, extra=extra)


def _checked(key: str, value: Any, rows: int) -> np.ndarray:
    array = _array(key, value)
    two_dimensional = key in _COLUMNS
    if (
        array.ndim != 1 + two_dimensional
        or len(array) != rows
        or (two_dimensional and _COLUMNS[key] not in (None, array.shape[1]))
    ):
        raise StoreError(f"{key} of shape {array.shape} with {rows} features")
    return array


def _array(key: str, value: Any) -> np.ndarray:
    try:
        array = np.asarray(value)
    except (ValueError, TypeError) as error:
        raise StoreError(f"{key} is no array ({first_line(error)})") from error
    if array.dtype.kind not in "fiu":
        raise StoreError(f"{key} is no array of numbers")
    return array


def _number(key: str, value: Any) -> int:
    try:
        return int(np.asarray(value).item())
    except (ValueError, TypeError, OverflowError) as error:
        raise StoreError(f"{key} is no number ({first_line(error)})") from error
