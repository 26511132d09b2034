"""How far the features of a lower precision are from those of float32."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from vmb_d2.comparison.fidelity import nearest_boxes, relative_errors
from vmb_d2.extractor import RegionFeatureExtractor
from vmb_d2.modeling import VMBRCNN

NEAR = 2  # original pixels


def price(model: VMBRCNN, precision: str, images: Sequence[str]) -> dict[str, Any]:
    """Compare the regions of all images in float32 and in ``precision``.

    Args:
        model: in float32.
        precision: to compare.
        images: paths.

    Returns:
        ``boxes_within_2_px``: the share of the float32 boxes that have one of ``precision`` there.
        ``found``, of these boxes, and ``given``, of all where ``precision`` gets the float32 boxes:
        ``feature_error`` (relative L2, ``median`` and ``worst``) and ``same_class``, a share.
    """
    exact = RegionFeatureExtractor(model)
    rough = RegionFeatureExtractor(model, precision=precision)
    near, errors, same = [], defaultdict(list), defaultdict(list)
    for image in images:
        expected, own = exact.extract(image), rough.extract(image)
        nearest, distances = nearest_boxes(expected.bbox, own.bbox)
        is_near = distances <= NEAR
        near.append(is_near)
        errors["found"].append(relative_errors(expected.features, own.features[nearest])[is_near])
        same["found"].append((expected.objects == own.objects[nearest])[is_near])
        given = rough.extract(image, boxes=expected.bbox)
        errors["given"].append(relative_errors(expected.features, given.features))
        same["given"].append(expected.objects == given.objects)
    result: dict[str, Any] = {"boxes_within_2_px": float(np.concatenate(near).mean())}
    for kind in errors:
        values = np.concatenate(errors[kind])
        error = {"median": float(np.median(values)), "worst": float(values.max())}
        same_class = float(np.concatenate(same[kind]).mean())
        result[kind] = {"feature_error": error, "same_class": same_class}
    return result
