"""Matching the boxes of one image in two stores that may write them in different ways."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..structures.regions import RegionFeatures
from .conventions import LAYOUTS, Convention, Size, in_original_pixels, pixel, shows_by_itself
from .matching import greedy_pairs, overlaps

_ONE = np.ones(2)
_ROUGH_OVERLAP = 0.5  # enough to see by how much the matched boxes differ
_ENOUGH_MATCHED = 0.5  # of the boxes, for a convention to be taken without trying the others
_FEWEST_MATCHED = {"scaled": 5}  # a ratio is estimated, so it fits a few boxes by chance
_FEWEST = 3
# Which store is taken to have another unit. A ratio fits all that network pixels fit: it is last.
_TRIED = (("original", 1), ("original", 0), ("network", 1), ("network", 0), ("scaled", 1))


@dataclass(frozen=True)
class Alignment:
    """Boxes of one image in A and B, brought to one convention and matched.

    Attributes:
        boxes: of A and B, float64 (R, 4) and (S, 4), inclusive, in original pixels.
        rows: of A and B, int64 (M,) each: the matched pairs, by rising row of A.
        conventions: of A and B, as they were written.
        ratio: (2,), x and y of B's boxes over those of A, where B's are ``scaled``.
    """

    boxes: tuple[np.ndarray, np.ndarray]
    rows: tuple[np.ndarray, np.ndarray]
    conventions: tuple[Convention, Convention]
    ratio: np.ndarray

    @property
    def matched(self) -> int:
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
        self._last = (Convention(), Convention())

    def __call__(self, a: RegionFeatures, b: RegionFeatures) -> Alignment:
        """Match the boxes of two extractions of one image. Both have boxes."""
        image = _Image(a, b, self._least)
        own = tuple(map(shows_by_itself, image.boxes, image.sizes, self._last))
        if np.array_equal(*image.boxes) and self._last[0] == self._last[1]:
            return image.by_row(own)
        enough = _ENOUGH_MATCHED * min(map(len, image.boxes))
        first = best = image.match(own)
        if self._last != own and all(map(_may_be, own, self._last)):
            last = image.match(self._last)
            best = last if last and last.matched >= first.matched else first
        if best.matched < enough:
            for conventions in _others(own):
                found = image.match(conventions)
                fewest = _FEWEST_MATCHED.get(conventions[1].unit, _FEWEST)
                if found and found.matched >= max(fewest, enough, best.matched + 1):
                    best = found
        if best.matched < enough:
            return first
        if best.matched >= _FEWEST:
            self._last = tuple(c._replace(exclusive=False) for c in best.conventions)
        return best


def _may_be(own: Convention, other: Convention) -> bool:
    """Whether boxes that show ``own`` by themselves may be ``other``: normalised ones stay so.

    Taken for pixels, any two of them would overlap, as each would be one pixel.
    """
    return (own.unit == "normalised") == (other.unit == "normalised")


def _others(own: tuple[Convention, Convention]) -> Iterator[tuple[Convention, Convention]]:
    """Pairs of conventions in which one store differs from what it shows by itself."""
    for unit, index in _TRIED:
        unit = "normalised" if own[index].unit == "normalised" else unit
        for layout in LAYOUTS:
            other = Convention(layout, unit)
            if other != own[index]:
                yield (own[0], other) if index else (other, own[1])


class _Image:
    """The boxes of one image in two stores."""

    def __init__(self, a: RegionFeatures, b: RegionFeatures, least: float):
        sizes = [size_of(regions) for regions in (a, b)]
        self.boxes = (a.bbox, b.bbox)
        self.sizes: tuple[Size | None, Size | None] = (sizes[0] or sizes[1], sizes[1] or sizes[0])
        self.least = least

    def by_row(self, conventions: tuple[Convention, Convention]) -> Alignment:
        """Match each row of A with the same one of B."""
        rows = np.arange(len(self.boxes[0]))
        return Alignment(self._boxes(conventions, _ONE), (rows, rows), conventions, _ONE)

    def match(self, conventions: tuple[Convention, Convention]) -> Alignment | None:
        """Match with these conventions; whether one is exclusive is found out.

        None where network pixels can't be told for want of the size, or no ratio fits.
        """
        if self.sizes[0] is None and any(c.unit == "network" for c in conventions):
            return None
        ratio = self._ratio(conventions) if conventions[1].unit == "scaled" else _ONE
        if ratio is None:
            return None
        boxes, overlap = self._overlaps(conventions, ratio)
        rough = greedy_pairs(overlap, min(_ROUGH_OVERLAP, self.least))
        found = self._with_ends(conventions, ratio, boxes, rough)
        if found != conventions:
            boxes, overlap = self._overlaps(found, ratio)
        return Alignment(boxes, greedy_pairs(overlap, self.least), found, ratio)

    def _boxes(self, conventions, ratio) -> tuple[np.ndarray, np.ndarray]:
        boxes = map(in_original_pixels, self.boxes, conventions, self.sizes, (ratio, ratio))
        return tuple(boxes)

    def _overlaps(self, conventions, ratio):
        boxes = self._boxes(conventions, ratio)
        return boxes, overlaps(*boxes)

    def _with_ends(self, conventions, ratio, boxes, pairs) -> tuple[Convention, Convention]:
        """The conventions, one of them exclusive where x2 and y2 are one pixel of it larger."""
        difference = boxes[1][pairs[1]] - boxes[0][pairs[0]]
        if len(difference) < _FEWEST:
            return conventions
        a, b = conventions
        for convention, size, sign in ((b, self.sizes[1], 1), (a, self.sizes[0], -1)):
            one = pixel(convention.unit, size, ratio)
            expected = np.concatenate([np.zeros(2), sign * one])
            near = (np.abs(difference - expected) < 0.05 * np.tile(one, 2)).all(axis=1)
            if near.mean() >= 0.8:
                exclusive = convention._replace(exclusive=True)
                return (a, exclusive) if sign == 1 else (exclusive, b)
        return conventions

    def _ratio(self, conventions) -> np.ndarray | None:
        """What x and y of B's boxes are to be divided by to become A's, estimated; or None.

        From the medians of the sorted coordinates of as many first rows as both have, then from
        the pairs that these match.
        """
        base = (conventions[0], conventions[1]._replace(unit="original"))
        a, b = self._boxes(base, _ONE)
        count = min(len(a), len(b))
        ratio = _median_ratio(np.sort(a[:count], axis=0), np.sort(b[:count], axis=0))
        for _ in range(2):
            if ratio is None:
                return None
            rows_a, rows_b = greedy_pairs(overlaps(a, b / np.tile(ratio, 2)), _ROUGH_OVERLAP)
            ratio = _median_ratio(a[rows_a], b[rows_b])
        return ratio


def _median_ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray | None:
    """Median of b / a in x2 and in y2, (2,); None where that isn't a positive number."""
    ratios = [b[:, i][a[:, i] > 0] / a[:, i][a[:, i] > 0] for i in (2, 3)]
    if not all(map(len, ratios)):
        return None
    ratio = np.array([np.median(values) for values in ratios])
    return ratio if np.isfinite(ratio).all() and (ratio > 0).all() else None


def size_of(regions: RegionFeatures) -> Size | None:
    """(height, width) of the image in original pixels, where the store has them."""
    if not regions.image_height or not regions.image_width:
        return None
    return int(regions.image_height), int(regions.image_width)
