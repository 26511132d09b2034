"""Checks of what was read, so that damage shows as a StoreError and as nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import StoreError, first_line

# Of each array beside the features, the length of its second axis; None for any.
_TABLES = {"bbox": 4, "cls_prob": None, "class_logits": None}
_LISTS = ("objects", "objects_conf", "confidence", "attrs_id", "attrs_conf")
_NUMBERS = ("num_boxes", "image_width", "image_height")


def checked(values: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of one image, arrays as arrays and numbers as int; None stays.

    Args:
        values: RegionFeatures' fields by name, with ``features``.

    Raises StoreError, without the file's name, where they are not the regions of one image.
    """
    found = dict(values)
    features = found["features"] = _array("features", values["features"])
    if features.ndim != 2:
        raise StoreError(f"features of shape {features.shape}, not (N, D)")
    for key in (*_TABLES, *_LISTS):
        if found.get(key) is None:
            continue
        array = found[key] = _array(key, found[key])
        expected = (len(features),) if key in _LISTS else (len(features), _TABLES.get(key))
        fits = array.ndim == len(expected) and all(
            size in (None, length) for size, length in zip(expected, array.shape, strict=True)
        )
        if not fits:
            raise StoreError(f"{key} of shape {array.shape} with {len(features)} features")
    for key in _NUMBERS:
        if found.get(key) is not None:
            found[key] = _number(key, found[key])
    return found


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
