"""Matching the boxes of one image in two stores that may write them in different ways."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torchvision

from ..data.preprocessing import resize_scale
from ..structures.box_geometry import to_exclusive, to_inclusive
from ..structures.regions import RegionFeatures

LAYOUTS = ("xyxy", "xywh", "yxyx")
_SMALLEST_IMAGE = 16  # an image with a shorter side has boxes as small as normalised ones
_MOST_NORMALISED = 2.0  # a box that reaches into the padding is normalised to more than 1
_UNKNOWN_SIZE = (1000, 1000)  # what normalised boxes are measured in where the size is unknown
_FEWEST_BOXES = 3  # of fewer, nothing is concluded
_ROUGH_OVERLAP = 0.5  # enough to see by how much the matched boxes differ
_ENOUGH_MATCHED = 0.5  # of the boxes, for a convention to be taken

Size = tuple[int, int]  # height, width
Pair = tuple[np.ndarray, np.ndarray]  # of A and of B


class Convention(NamedTuple):
    """How boxes are written.

    Attributes:
        layout: of ``LAYOUTS``; in ``xywh`` the last two are sides.
        unit: ``original`` or ``network`` pixels, or ``normalised`` by width and height.
        exclusive: x2 and y2 are one larger; of ``xywh``, the sides are x2 - x1 + 1, not x2 - x1.
    """

    layout: str = "xyxy"
    unit: str = "original"
    exclusive: bool = False


Conventions = tuple[Convention, Convention]  # of A and of B


def in_original_pixels(boxes: np.ndarray, convention: Convention, size: Size | None) -> np.ndarray:
    """Boxes (R, 4) of a convention as float64 inclusive x1, y1, x2, y2 in original pixels.

    Args:
        size: (height, width) of the image; must be known for network pixels.
    """
    result = boxes.astype(np.float64)
    if convention.layout == "xywh":
        result = np.concatenate([result[:, :2], result[:, :2] + result[:, 2:]], axis=1)
    elif convention.layout == "yxyx":
        result = result[:, [1, 0, 3, 2]]
    if convention.unit == "normalised":
        height, width = size or _UNKNOWN_SIZE
        result = result * [width, height, width, height]
    if convention.exclusive:
        result = to_inclusive(torch.from_numpy(np.ascontiguousarray(result))).numpy()
    return result * _pixel(convention, size)


def _pixel(convention: Convention, size: Size | None) -> float:
    """How many original pixels one pixel of the boxes is."""
    if convention.unit != "network":
        return 1.0
    assert size is not None
    return 1 / resize_scale(*size)


def own_convention(boxes: np.ndarray, size: Size | None, last: Convention) -> Convention:
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


def overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of every pair of inclusive boxes, float64 (R, S); 0 where undefined.

    ``a`` (R, 4) and ``b`` (S, 4) are float64, x1, y1, x2, y2.
    """
    exclusive = [to_exclusive(torch.from_numpy(np.ascontiguousarray(x))) for x in (a, b)]
    return np.nan_to_num(torchvision.ops.box_iou(*exclusive).numpy(), nan=0.0, posinf=0.0)


def greedy_pairs(iou: np.ndarray, least: float) -> Pair:
    """Pair rows and columns one to one, those that overlap most first.

    Of equal overlaps the one of the lowest row comes first, then of the lowest column. Pairs that
    overlap less than ``least`` are left out; with a higher ``least``, the others stay the same.

    Args:
        iou: (R, S), at least 0.
        least: above 0.

    Returns:
        Rows and columns of the pairs, int64, by rising row.
    """
    iou = np.where(iou >= least, iou, 0.0)
    partner = np.full(len(iou), -1)
    while iou.any():
        # A pair that is the best of its row and of its column comes before all that it excludes.
        columns, rows = iou.argmax(axis=1), iou.argmax(axis=0)
        mutual = np.flatnonzero((rows[columns] == np.arange(len(iou))) & iou.any(axis=1))
        partner[mutual] = columns[mutual]
        iou[mutual] = 0
        iou[:, columns[mutual]] = 0
    matched = np.flatnonzero(partner >= 0)
    return matched, partner[matched]


@dataclass(frozen=True)
class Alignment:
    """Boxes of one image in A and B, brought to one convention and matched.

    Attributes:
        boxes: of A and B, float64 (R, 4) and (S, 4), inclusive, in original pixels.
        rows: of A and B, int64 (M,) each: the matched pairs, by rising row of A.
        conventions: of A and B, as they were written.
    """

    boxes: Pair
    rows: Pair
    conventions: Conventions

    @property
    def matched(self) -> int:
        """The number of pairs, M."""
        return len(self.rows[0])

    @property
    def distances(self) -> np.ndarray:
        """Largest distance of a coordinate for each pair, in original pixels, (M,)."""
        (a, b), (rows_a, rows_b) = self.boxes, self.rows
        with np.errstate(invalid="ignore"):  # equal infinities
            return np.nan_to_num(np.abs(a[rows_a] - b[rows_b])).max(axis=1, initial=0)


class Aligner:
    """Matches the boxes of one image after another; the conventions found are tried first.

    Boxes as they are count as matched where half of the fewer are; otherwise A or B is taken to
    be written in each of the other conventions, and the one that matches most boxes, and half of
    them, holds. Where none does the boxes stay as they are.

    Args:
        least_overlap: of a pair that counts as matched.
    """

    def __init__(self, least_overlap: float):
        self._least = least_overlap
        self._last: Conventions = (Convention(), Convention())

    def align(self, a: RegionFeatures, b: RegionFeatures) -> Alignment:
        """Match the boxes of two extractions of one image. Both have boxes."""
        assert a.bbox is not None and b.bbox is not None
        size_a, size_b = size_of(a), size_of(b)
        sizes = size_a or size_b, size_b or size_a
        image = _Image((a.bbox, b.bbox), sizes, self._least)
        own = (
            own_convention(a.bbox, sizes[0], self._last[0]),
            own_convention(b.bbox, sizes[1], self._last[1]),
        )
        if np.array_equal(a.bbox, b.bbox) and self._last[0] == self._last[1]:
            return image.by_row(own)
        enough = _ENOUGH_MATCHED * min(len(a), len(b))
        first = best = image.match(own)
        if self._last != own and all(map(_may_be, own, self._last)) and image.can_be(self._last):
            last = image.match(self._last)
            best = last if last.matched >= first.matched else first
        if best.matched < enough:
            for conventions in filter(image.can_be, _others(own)):
                found = image.match(conventions)
                if found.matched >= max(_FEWEST_BOXES, enough, best.matched + 1):
                    best = found
        if best.matched < enough:
            return first
        if best.matched >= _FEWEST_BOXES:
            found_a, found_b = best.conventions
            self._last = found_a._replace(exclusive=False), found_b._replace(exclusive=False)
        return best


def _may_be(own: Convention, other: Convention) -> bool:
    """Whether boxes that show ``own`` by themselves may be ``other``: normalised ones stay so.

    Taken for pixels, any two of them would overlap, as each would be one pixel.
    """
    return (own.unit == "normalised") == (other.unit == "normalised")


def _others(own: Conventions) -> Iterator[Conventions]:
    """Pairs of conventions in which one store differs from what it shows by itself."""
    for unit in ("original", "network"):
        for index in (1, 0):
            kept = "normalised" if own[index].unit == "normalised" else unit
            for layout in LAYOUTS:
                other = Convention(layout, kept)
                if other != own[index]:
                    yield (own[0], other) if index else (other, own[1])


class _Image:
    """The boxes of one image in two stores."""

    def __init__(self, boxes: Pair, sizes: tuple[Size | None, Size | None], least: float):
        self.boxes, self.sizes, self.least = boxes, sizes, least

    def can_be(self, conventions: Conventions) -> bool:
        """Whether the boxes can be brought to original pixels from these conventions."""
        return self.sizes[0] is not None or all(c.unit != "network" for c in conventions)

    def by_row(self, conventions: Conventions) -> Alignment:
        """Match each row of A with the same one of B."""
        rows = np.arange(len(self.boxes[0]))
        return Alignment(self._in_pixels(conventions), (rows, rows), conventions)

    def match(self, conventions: Conventions) -> Alignment:
        """Match with these conventions; whether one is exclusive is found out."""
        boxes = self._in_pixels(conventions)
        overlap = overlaps(*boxes)
        rough = greedy_pairs(overlap, min(_ROUGH_OVERLAP, self.least))
        found = self._with_ends(conventions, boxes[1][rough[1]] - boxes[0][rough[0]])
        if found != conventions:
            boxes = self._in_pixels(found)
            overlap = overlaps(*boxes)
        return Alignment(boxes, greedy_pairs(overlap, self.least), found)

    def _in_pixels(self, conventions: Conventions) -> Pair:
        (a, b), (size_a, size_b) = self.boxes, self.sizes
        return (
            in_original_pixels(a, conventions[0], size_a),
            in_original_pixels(b, conventions[1], size_b),
        )

    def _with_ends(self, conventions: Conventions, difference: np.ndarray) -> Conventions:
        """The conventions, one of them exclusive where x2 and y2 are one pixel of it larger.

        Args:
            difference: of matched boxes, B's less A's, (M, 4).
        """
        if len(difference) < _FEWEST_BOXES:
            return conventions
        a, b = conventions
        for convention, size, sign in ((b, self.sizes[1], 1), (a, self.sizes[0], -1)):
            one = _pixel(convention, size)
            expected = sign * one * np.array([0, 0, 1, 1])
            near = (np.abs(difference - expected) < 0.05 * one).all(axis=1)
            if near.mean() >= 0.8:
                exclusive = convention._replace(exclusive=True)
                return (a, exclusive) if sign == 1 else (exclusive, b)
        return conventions


def size_of(regions: RegionFeatures) -> Size | None:
    """(height, width) of the image in original pixels, where the store has them."""
    if not regions.image_height or not regions.image_width:
        return None
    return int(regions.image_height), int(regions.image_width)
