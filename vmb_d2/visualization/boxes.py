"""Boxes to draw, with their labels and colours."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np
import torch

from ..errors import StoreError
from ..structures import box_geometry
from ..structures.class_names import ClassNames
from ..structures.regions import RegionFeatures

Color = tuple[int, int, int]  # red, green, blue, 0 to 255

LIKELIEST = 5
ATTRIBUTES = 2  # of a box, at most
MIN_ATTRIBUTE = 0.3  # that the probability of an attribute exceeds which is shown
NEUTRAL: Color = (225, 225, 225)  # of the background, and of boxes without a class
_DIGITS = 4  # to which probabilities are rounded, for the PNGs and the page alike
_GOLDEN_RATIO = 0.6180339887
_LIGHTNESS = (0.68, 0.75, 0.82)  # black text is legible on all of them
_SATURATION = 0.9


def color_of(number: int | None) -> Color:
    """The colour of a class, always the same; ``NEUTRAL`` for None, the background or no class.

    Neighbouring numbers get hues far apart.
    """
    if number is None:
        return NEUTRAL
    hue = number * _GOLDEN_RATIO % 1
    red, green, blue = colorsys.hls_to_rgb(hue, _LIGHTNESS[number % len(_LIGHTNESS)], _SATURATION)
    return round(255 * red), round(255 * green), round(255 * blue)


@dataclass(frozen=True)
class ShownBox:
    """One box to be drawn.

    Attributes:
        stored: x1, y1, x2, y2 as stored, in original pixels.
        clipped: the same, inclusive and moved into the image.
        label: name of the class; None where none is stored.
        confidence: probability of the class; None where it isn't stored.
        likeliest: up to five names with their probabilities, the highest first.
        color: of the class.
        attributes: names of the most probable ones, at most ``ATTRIBUTES``; empty where names or
            attributes aren't known.
    """

    stored: tuple[float, float, float, float]
    clipped: tuple[float, float, float, float]
    label: str | None
    confidence: float | None
    likeliest: tuple[tuple[str, float], ...]
    color: Color
    attributes: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """Attributes, label and confidence, as far as they are known: "brown table 0.93"."""
        confidence = None if self.confidence is None else f"{self.confidence:.2f}"
        return " ".join(part for part in (*self.attributes, self.label, confidence) if part)


def shown_boxes(
    regions: RegionFeatures,
    size: tuple[int, int],
    class_names: ClassNames,
    top: int,
    inclusive: bool = True,
) -> list[ShownBox]:
    """The ``top`` most confident boxes, by falling confidence; in the order stored without one.

    Args:
        regions: of the image.
        size: the image's (height, width) in pixels.
        class_names: of the store's classes and attributes.
        top: how many at most.
        inclusive: whether (x2, y2) of the stored boxes is a box's last pixel.

    Raises:
        StoreError: no boxes are stored, they are of an image of another size, or a number isn't
            finite.
        ConfigError: the names don't fit the store.
    """
    stored_size = (regions.image_height, regions.image_width)
    if None not in stored_size and stored_size != size:
        raise StoreError(
            f"the boxes are of an image of {stored_size[1]} x {stored_size[0]} pixels, "
            f"this one has {size[1]} x {size[0]}"
        )
    bbox, objects = _finite("bbox", regions.bbox), regions.objects
    if bbox is None:
        raise StoreError("no boxes are stored")
    cls_prob = _finite("cls_prob", regions.cls_prob)
    confidence = None if objects is None else _finite("objects_conf", regions.objects_conf)
    if cls_prob is not None:
        class_names = class_names.for_columns(cls_prob.shape[1])
    order: np.ndarray = np.arange(len(bbox))
    if confidence is not None:
        confidence = confidence.round(_DIGITS)
        order = np.argsort(-confidence, kind="stable")
    attributes = _attributes(regions, class_names)
    boxes = torch.from_numpy(bbox)
    if not inclusive:
        boxes = box_geometry.to_inclusive(boxes)
    clipped = box_geometry.VMB.clip(boxes, size).numpy()
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
                attributes=attributes[row],
            )
        )
    return shown


def _likeliest(probabilities: np.ndarray, names: ClassNames) -> tuple[tuple[str, float], ...]:
    best = np.argsort(-probabilities, kind="stable")[:LIKELIEST]
    return tuple((names[int(i)], round(float(probabilities[i]), _DIGITS)) for i in best)


def _attributes(regions: RegionFeatures, names: ClassNames) -> list[tuple[str, ...]]:
    """Of each region the names of the attributes to show."""
    known = regions.top_attributes()
    if known is None or names.attributes is None:
        return [()] * len(regions)
    ids, scores = (values[:, :ATTRIBUTES] for values in known)
    probable = [own[of > MIN_ATTRIBUTE] for own, of in zip(ids, scores, strict=True)]
    return [tuple(names.attributes_of(own)) for own in probable]


def _finite(name: str, values: np.ndarray | None) -> np.ndarray | None:
    """The values as float64. Raises StoreError where one is a NaN or infinite."""
    if values is not None and not np.isfinite(values).all():
        raise StoreError(f"the stored {name} has NaNs or infinities")
    return None if values is None else values.astype(np.float64)
