"""The ways in which stores write boxes, and back from each to inclusive x1, y1, x2, y2."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from ..data.preprocessing import resize_scale
from ..structures.box_geometry import to_inclusive

LAYOUTS = ("xyxy", "xywh", "yxyx")
_SMALLEST_IMAGE = 16  # an image with a shorter side has boxes as small as normalised ones
_MOST_NORMALISED = 2.0  # a box that reaches into the padding is normalised to more than 1
_UNKNOWN_SIZE = (1000, 1000)  # what normalised boxes are measured in when nobody knows the size
_FEWEST_BOXES = 3  # of so many, a store's boxes can be judged on their own

Size = tuple[int, int]  # height, width


class Convention(NamedTuple):
    """How boxes are written.

    Attributes:
        layout: of ``LAYOUTS``; in ``xywh`` the last two are sides.
        unit: ``original`` or ``network`` pixels; ``normalised``, by width and height; ``scaled``,
            original pixels times a ratio that only the other store tells.
        exclusive: x2 and y2 are one larger; of ``xywh``, the sides are x2 - x1 + 1, not x2 - x1.
    """

    layout: str = "xyxy"
    unit: str = "original"
    exclusive: bool = False


def corners(boxes: np.ndarray, layout: str) -> np.ndarray:
    """Boxes (R, 4) of a layout as x1, y1, x2, y2."""
    if layout == "xywh":
        return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    return boxes[:, [1, 0, 3, 2]] if layout == "yxyx" else boxes


def pixel(unit: str, size: Size | None, ratio: np.ndarray) -> np.ndarray:
    """How many original pixels, in x and y, one pixel of the store's boxes is; float64 (2,).

    A normalised box is made one in original pixels first, so its pixel is 1.
    """
    if unit == "network":
        return np.full(2, 1 / resize_scale(*size))
    return 1 / ratio if unit == "scaled" else np.ones(2)


def in_original_pixels(
    boxes: np.ndarray, convention: Convention, size: Size | None, ratio: np.ndarray
) -> np.ndarray:
    """Boxes (R, 4) of a convention as float64 inclusive x1, y1, x2, y2 in original pixels.

    Args:
        size: of the image; must be known for network pixels.
        ratio: (2,), what x and y of scaled boxes are to be divided by.
    """
    result = corners(boxes.astype(np.float64), convention.layout)
    if convention.unit == "normalised":
        height, width = size or _UNKNOWN_SIZE
        result = result * [width, height, width, height]
    if convention.exclusive:
        result = to_inclusive(torch.from_numpy(np.ascontiguousarray(result))).numpy()
    return result * np.tile(pixel(convention.unit, size, ratio), 2)


def shows_by_itself(boxes: np.ndarray, size: Size | None, last: Convention) -> Convention:
    """The convention that boxes (R, 4) show without others to compare them with.

    No coordinate above 2 is normalised; x2 or y2 before x1 or y1, in more than a tenth of the
    boxes, is x, y, width, height. Of fewer than three boxes, the unit is that of ``last``.
    """
    if len(boxes) < _FEWEST_BOXES:
        return Convention(unit="normalised" if last.unit == "normalised" else "original")
    with np.errstate(invalid="ignore"):
        normalised = 0 < boxes.max() <= _MOST_NORMALISED
        crossed = (boxes[:, 2:] < boxes[:, :2] - (0 if normalised else 1)).any(axis=1)
    normalised = normalised and (size is None or min(size) > _SMALLEST_IMAGE)
    return Convention(
        layout="xywh" if crossed.mean() > 0.1 else "xyxy",
        unit="normalised" if normalised else "original",
    )
