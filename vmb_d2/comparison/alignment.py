"""Bringing the boxes of two stores to one convention, and matching the boxes of one image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torchvision

from ..data.preprocessing import resize_scale
from ..structures.box_geometry import to_exclusive, to_inclusive
from ..structures.regions import RegionFeatures

LAYOUTS = ("xyxy", "xywh", "yxyx")
_UNITS = ("original", "network")
_MOST_NORMALISED = 2.0  # a box that reaches into the padding is normalised to more than 1
_UNKNOWN_SIZE = (1000, 1000)  # what normalised boxes are multiplied by where no store has the size
_ROUGH_OVERLAP = 0.5  # enough to see by how much the matched boxes differ
_FEWEST_MATCHED = 3  # fewer tell nothing about a convention

Size = tuple[int, int]  # height, width
Rows = tuple[np.ndarray, np.ndarray]  # of A and B, int64 [M] each


class Convention(NamedTuple):
    """How a store writes its boxes.

    Attributes:
        layout: ``xyxy``; ``xywh``, the last two are width and height; ``yxyx``.
        unit: ``original`` or ``network`` pixels; ``normalised`` by width and height.
        exclusive: x2 and y2 are one larger than the last column and row; of ``xywh``, the sides
            are x2 - x1 + 1 with inclusive x2, not x2 - x1.
    """

    layout: str = "xyxy"
    unit: str = "original"
    exclusive: bool = False


Conventions = tuple[Convention, Convention]  # of A and B


class BoxPair(NamedTuple):
    """The boxes of one image in A and B, [R, 4] and [S, 4], as stored, and its size in each."""

    boxes: tuple[np.ndarray, np.ndarray]
    sizes: tuple[Size | None, Size | None]


class Alignment(NamedTuple):
    """The boxes of one image in A and B, matched one to one.

    Attributes:
        boxes: of A and B, float64 [R, 4] and [S, 4], inclusive, in original pixels.
        rows: the matched pairs, by rising row of A.
    """

    boxes: tuple[np.ndarray, np.ndarray]
    rows: Rows

    @property
    def distances(self) -> np.ndarray:
        """Largest distance of a coordinate for each pair, in original pixels, [M]."""
        (a, b), (rows_a, rows_b) = self.boxes, self.rows
        with np.errstate(invalid="ignore"):  # equal infinities
            return np.nan_to_num(np.abs(a[rows_a] - b[rows_b])).max(axis=1, initial=0)


def size_of(regions: RegionFeatures) -> Size | None:
    """(height, width) of the image in original pixels, where the store has them."""
    if not regions.image_height or not regions.image_width:
        return None
    return int(regions.image_height), int(regions.image_width)


def box_pair(a: RegionFeatures, b: RegionFeatures) -> BoxPair | None:
    """The boxes of one image; None where a store has none. A size may come from the other store."""
    if a.bbox is None or b.bbox is None:
        return None
    sizes = size_of(a), size_of(b)
    return BoxPair((a.bbox, b.bbox), (sizes[0] or sizes[1], sizes[1] or sizes[0]))


def find_conventions(pairs: Sequence[BoxPair], least_overlap: float) -> Conventions:
    """The conventions in which A and B write their boxes, found from some of their images.

    What each store shows by itself holds if half of the boxes match so. Otherwise the convention
    of one of them is replaced by each other one; that with most matches holds, if it is half.

    Args:
        pairs: of the images.
        least_overlap: of boxes that match.
    """
    own = (
        _own_convention([p.boxes[0] for p in pairs]),
        _own_convention([p.boxes[1] for p in pairs]),
    )
    enough = max(_FEWEST_MATCHED, sum(min(map(len, p.boxes)) for p in pairs) / 2)
    found, most = own, 0
    for candidate in (own, *_others(own)):
        conventions = _with_ends(pairs, candidate, min(_ROUGH_OVERLAP, least_overlap))
        matched = sum(len(align(p, conventions, least_overlap).rows[0]) for p in pairs)
        if matched >= enough and matched > most:
            found, most = conventions, matched
        if candidate is own and most:
            break
    return found


def align(pair: BoxPair, conventions: Conventions, least_overlap: float) -> Alignment:
    """Match the boxes of one image, greedily by overlap; equal lists of boxes row by row."""
    a, b = (
        in_original_pixels(boxes, convention, size)
        for boxes, convention, size in zip(pair.boxes, conventions, pair.sizes, strict=True)
    )
    if conventions[0] == conventions[1] and np.array_equal(*pair.boxes, equal_nan=True):
        return Alignment((a, b), (np.arange(len(a)), np.arange(len(a))))
    return Alignment((a, b), greedy_pairs(overlaps(a, b), least_overlap))


def in_original_pixels(boxes: np.ndarray, convention: Convention, size: Size | None) -> np.ndarray:
    """Boxes [R, 4] of a convention as float64 inclusive x1, y1, x2, y2 in original pixels."""
    result = boxes.astype(np.float64)
    if convention.layout == "xywh":
        result[:, 2:] += result[:, :2]
    elif convention.layout == "yxyx":
        result = result[:, [1, 0, 3, 2]]
    if convention.unit == "normalised":
        height, width = size or _UNKNOWN_SIZE
        result = result * [width, height, width, height]
    if convention.exclusive:
        result = to_inclusive(torch.from_numpy(result)).numpy()
    return result * _pixel(convention, size)


def overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of every pair of inclusive float64 boxes [R, 4] and [S, 4], [R, S].

    0 where a box isn't finite.
    """
    exclusive = [to_exclusive(torch.from_numpy(boxes)) for boxes in (a, b)]
    return np.nan_to_num(torchvision.ops.box_iou(*exclusive).numpy(), nan=0.0, posinf=0.0)


def greedy_pairs(iou: np.ndarray, least: float) -> Rows:
    """Pair rows and columns of ``iou`` [R, S] one to one, those that overlap most first.

    Of equal overlaps the one of the lowest row comes first, then of the lowest column. Pairs that
    overlap less than ``least``, which is above 0, are left out.
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


def _own_convention(boxes: Sequence[np.ndarray]) -> Convention:
    """What one store's boxes show without the other's.

    Without a coordinate above 2 they are normalised; if x2 or y2 lies before x1 or y1 in more than
    a tenth of them, they are x, y, width, height.
    """
    every = np.concatenate([np.empty((0, 4)), *boxes])
    every = every[np.isfinite(every).all(axis=1)]
    if not len(every):
        return Convention()
    normalised = 0 < every.max() <= _MOST_NORMALISED
    crossed = (every[:, 2:] < every[:, :2] - (0 if normalised else 1)).any(axis=1)
    return Convention(
        layout="xywh" if crossed.mean() > 0.1 else "xyxy",
        unit="normalised" if normalised else "original",
    )


def _others(own: Conventions) -> Iterator[Conventions]:
    """Pairs of conventions in which one store has another one than it shows by itself."""
    for store in (1, 0):
        units = _UNITS if own[store].unit == "original" else (own[store].unit,)
        for unit in units:
            for layout in LAYOUTS:
                other = Convention(layout, unit)
                if other != own[store]:
                    yield (own[0], other) if store else (other, own[1])


def _with_ends(pairs: Sequence[BoxPair], conventions: Conventions, overlap: float) -> Conventions:
    """The conventions, one of them exclusive where x2 and y2 are one pixel of it larger."""
    aligned = [align(pair, conventions, overlap) for pair in pairs]
    for store, sign in ((1, 1), (0, -1)):
        near = [np.empty(0, dtype=bool)]
        for pair, (boxes, rows) in zip(pairs, aligned, strict=True):
            pixel = _pixel(conventions[store], pair.sizes[store])
            with np.errstate(invalid="ignore"):  # equal infinities
                difference = (boxes[1][rows[1]] - boxes[0][rows[0]]) / pixel
            near.append((np.abs(difference - [0, 0, sign, sign]) < 0.05).all(axis=1))
        every = np.concatenate(near)
        if len(every) >= _FEWEST_MATCHED and every.mean() >= 0.8:
            exclusive = conventions[store]._replace(exclusive=True)
            return (conventions[0], exclusive) if store else (exclusive, conventions[1])
    return conventions


def _pixel(convention: Convention, size: Size | None) -> float:
    """The side of one pixel of a store's boxes in original pixels, where the size is known."""
    return 1 / resize_scale(*size) if convention.unit == "network" and size else 1.0
