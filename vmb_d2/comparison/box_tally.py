"""How the boxes of two stores matched, and what is peculiar about those that did not."""

from __future__ import annotations

from collections import Counter

import numpy as np
import torch

from ..data.preprocessing import LONG_SIDE, network_size, padded_size, resize_scale
from ..structures.box_geometry import clip
from ..structures.regions import RegionFeatures
from .alignment import Alignment, size_of
from .conventions import Convention, Size
from .quantiles import LogHistogram

_MOVED = 1.0  # original pixels: a matched box this far away is another box
_MARGIN = 2.0  # original pixels past a border that don't count: conventions of the last pixel
_FEWEST_MATCHED = 3  # so few tell nothing about a convention


class BoxTally:
    """Counts over the images in which both stores have boxes.

    Attributes:
        distances: largest distance of a coordinate of each matched pair, original pixels.
        conventions: how many images have A's and B's boxes in these conventions. Only those with
            three pairs or more count.
        ratios: smallest and largest of x, of y, of B's boxes over A's where they are scaled.
        reordered: images in which the matched pairs come in another order.
        past_padding: boxes of A and of B that end past the image's own padded size and have no
            equal in the other store.
        past_padding_images: in which there are such.
        past_all_padding: boxes that end past the padding of any batch.
        past_image: boxes of A and of B that end past the image but within its own padding.
        at_image: boxes of A and of B that end with the image.
    """

    def __init__(self):
        self.distances = LogHistogram()
        self.conventions: Counter[tuple[Convention, Convention]] = Counter()
        self.ratios = (np.full(2, np.inf), np.full(2, -np.inf))
        self.reordered = 0
        self.past_padding = [0, 0]
        self.past_padding_images = 0
        self.past_all_padding = 0
        self.past_image = [0, 0]
        self.at_image = [0, 0]

    def add(self, a: RegionFeatures, b: RegionFeatures, alignment: Alignment) -> None:
        """Count one image."""
        distances = alignment.distances
        self.distances.add(distances)
        if alignment.matched >= _FEWEST_MATCHED:
            self.conventions[alignment.conventions] += 1
            if alignment.conventions[1].unit == "scaled":
                low, high = self.ratios
                ratio = alignment.ratio
                self.ratios = np.minimum(low, ratio), np.maximum(high, ratio)
        self.reordered += bool((np.diff(alignment.rows[1]) < 0).any())
        self._add_borders((a, b), alignment, distances)

    def _add_borders(self, regions, alignment: Alignment, distances: np.ndarray) -> None:
        sizes = [size_of(r) for r in regions]
        past_padding = 0
        for store, boxes in enumerate(alignment.boxes):
            size = sizes[store] or sizes[1 - store]
            if size is None:
                continue
            other = np.ones(len(boxes), dtype=bool)
            other[alignment.rows[store][distances <= _MOVED]] = False
            beyond = ends_past_padding(boxes, size)
            past = ends_past_image(boxes, size) & ~beyond
            self.past_all_padding += int(ends_past_all_padding(boxes, size).sum())
            self.past_image[store] += int(past.sum())
            self.at_image[store] += int(ends_with_image(boxes, size).sum())
            self.past_padding[store] += int((beyond & other).sum())
            past_padding += int((beyond & other).sum())
        self.past_padding_images += past_padding > 0


def ends_past_image(boxes: np.ndarray, size: Size) -> np.ndarray:
    """Bool (R,): which boxes in original pixels end past an image of (height, width)."""
    return _cut_by(boxes, size, 1.0)


def ends_with_image(boxes: np.ndarray, size: Size) -> np.ndarray:
    """Bool (R,): which boxes end in the last column or row of the image, inclusive or not."""
    return (np.abs(boxes[:, 2:] - np.array(size)[::-1] + 0.5) < 0.6).any(axis=1)


def ends_past_padding(boxes: np.ndarray, size: Size) -> np.ndarray:
    """Bool (R,): which end past what the padding of the image on its own leaves them.

    A box of the original that does was clipped to the padded size of a batch with a larger image.
    """
    return _cut_by(boxes, padded_size(*network_size(*size)), resize_scale(*size))


def ends_past_all_padding(boxes: np.ndarray, size: Size) -> np.ndarray:
    """Bool (R,): which end past the padded size of every image there is. None of the original."""
    return _cut_by(boxes, padded_size(LONG_SIDE, LONG_SIDE), resize_scale(*size))


def _cut_by(boxes: np.ndarray, size: Size, scale: float) -> np.ndarray:
    """Which boxes, times ``scale``, clipping to ``size`` would move by more than the margin."""
    scaled = torch.from_numpy(boxes * scale)
    ends = (scaled - clip(scaled, size)).numpy()[:, 2:]
    return (ends > _MARGIN * scale).any(axis=1)
