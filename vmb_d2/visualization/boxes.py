"""What is shown of one image's regions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ..errors import StoreError
from ..structures import box_geometry
from ..structures.class_names import ClassNames
from ..structures.regions import RegionFeatures
from .colors import Color, color_of

LIKELIEST = 5
_DIGITS = 4  # of a probability: the PNGs and the page filter by the same number


@dataclass(frozen=True)
class ShownBox:
    """One box to be drawn.

    Attributes:
        stored: x1, y1, x2, y2 as stored: inclusive, in original pixels.
        clipped: the same, moved into the image.
        label: name of the class; None where none is stored.
        confidence: probability of the class; None where it isn't stored.
        likeliest: up to five names with their probabilities, the highest first.
        color: of the class.
    """

    stored: tuple[float, float, float, float]
    clipped: tuple[float, float, float, float]
    label: str | None
    confidence: float | None
    likeliest: tuple[tuple[str, float], ...]
    color: Color

    @property
    def text(self) -> str:
        """The label with the confidence, as far as they are known."""
        confidence = None if self.confidence is None else f"{self.confidence:.2f}"
        return " ".join(part for part in (self.label, confidence) if part)

    def reaches(self, min_confidence: float) -> bool:
        """Whether the confidence is at least so high. One that isn't known is."""
        return self.confidence is None or self.confidence >= min_confidence


def shown_boxes(
    regions: RegionFeatures, size: tuple[int, int], class_names: ClassNames, top: int
) -> list[ShownBox]:
    """The ``top`` most confident boxes, by falling confidence; in the order stored without one.

    Args:
        regions: of the image.
        size: the image's (height, width) in pixels.
        class_names: of the store.
        top: how many at most.

    Raises:
        StoreError: no boxes are stored, they are of an image of another size, or the numbers
            can't be right.
        ConfigError: the class names don't fit the store.
    """
    _check_size(regions, size)
    bbox = _array(regions.bbox, "bbox", (None, 4))
    if bbox is None:
        raise StoreError("no boxes are stored")
    count = len(bbox)
    objects = _array(regions.objects, "objects", (count,))
    cls_prob = _array(regions.cls_prob, "cls_prob", (count, None))
    confidence = None if objects is None else _array(regions.objects_conf, "objects_conf", (count,))
    if cls_prob is not None:
        class_names = class_names.for_columns(cls_prob.shape[1])
    order = np.arange(count)
    if confidence is not None:
        confidence = confidence.round(_DIGITS)
        order = np.argsort(-confidence, kind="stable")
    clipped = box_geometry.clip(torch.from_numpy(bbox), size).numpy()
    shown = []
    for row in order[:top]:
        index = None if objects is None else int(objects[row])
        shown.append(
            ShownBox(
                stored=tuple(bbox[row].tolist()),
                clipped=tuple(clipped[row].tolist()),
                label=None if index is None else class_names[index],
                confidence=None if confidence is None else float(confidence[row]),
                likeliest=() if cls_prob is None else _likeliest(cls_prob[row], class_names),
                color=color_of(None if index is None else class_names.number(index)),
            )
        )
    return shown


def _likeliest(probabilities: np.ndarray, names: ClassNames) -> tuple[tuple[str, float], ...]:
    best = np.argsort(-probabilities, kind="stable")[:LIKELIEST]
    return tuple((names[int(i)], round(float(probabilities[i]), _DIGITS)) for i in best)


def _check_size(regions: RegionFeatures, size: tuple[int, int]) -> None:
    stored = (regions.image_height, regions.image_width)
    if None not in stored and stored != size:
        raise StoreError(
            f"the boxes are of an image of {stored[1]} x {stored[0]} pixels, "
            f"this one has {size[1]} x {size[0]}"
        )


def _array(value, name: str, shape: tuple[int | None, ...]) -> np.ndarray | None:
    """``value`` as finite float64 of that shape, where None is any; None where it isn't there."""
    if value is None:
        return None
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise StoreError(f"the stored {name} are no numbers") from error
    fits = array.ndim == len(shape) and all(
        want in (None, have) for want, have in zip(shape, array.shape, strict=True)
    )
    if not fits or not np.isfinite(array).all():
        raise StoreError(f"the stored {name} of shape {array.shape} are damaged")
    return array
