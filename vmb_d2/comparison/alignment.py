"""Bringing the boxes of two stores to one convention, and matching the boxes of one image."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torchvision

from ..config.input_step import MMF_INPUT
from ..structures.box_geometry import to_exclusive, to_inclusive
from ..structures.regions import RegionFeatures

_MOST_NORMALISED = 2.0  # a box that reaches into the padding is normalised to more than 1
_UNKNOWN_SIZE = (1000, 1000)  # what normalised boxes are multiplied by where no store has the size
_ROUGH_OVERLAP = 0.5  # of boxes whose ends are compared
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
    """The boxes of one image in A and B, [R, 4] and [S, 4], as stored, and the image's size."""

    boxes: tuple[np.ndarray, np.ndarray]
    size: Size | None


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
    """The boxes of one image; None where a store has none."""
    if a.bbox is None or b.bbox is None:
        return None
    return BoxPair((a.bbox, b.bbox), size_of(a) or size_of(b))


def find_conventions(
    pairs: Sequence[BoxPair], least_overlap: float, exclusive: tuple[bool, bool] = (False, False)
) -> Conventions:
    """The conventions in which A and B write their boxes, found from some of their images.

    The first that each store's boxes allow hold if half of the boxes match so. Otherwise all pairs
    of conventions are tried; the one with most matches holds, if it is half.

    Args:
        pairs: of the images.
        least_overlap: of boxes that match.
        exclusive: whether A's and B's boxes are, by the records of their making.
    """
    first, *others = itertools.product(
        _possible([p.boxes[0] for p in pairs], exclusive[0]),
        _possible([p.boxes[1] for p in pairs], exclusive[1]),
    )

    def matched(conventions: Conventions) -> int:
        return sum(len(align(pair, conventions, least_overlap).rows[0]) for pair in pairs)

    enough = max(_FEWEST_MATCHED, sum(min(map(len, p.boxes)) for p in pairs) / 2)
    found = first
    if matched(first) < enough:
        found = max(others, key=matched, default=first)
        if matched(found) < enough:
            return first
    return _with_ends(pairs, found, min(_ROUGH_OVERLAP, least_overlap))


def align(pair: BoxPair, conventions: Conventions, least_overlap: float) -> Alignment:
    """Match the boxes of one image, greedily by overlap; equal lists of boxes row by row."""
    a, b = (
        in_original_pixels(boxes, convention, pair.size)
        for boxes, convention in zip(pair.boxes, conventions, strict=True)
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
    if convention.unit == "network" and size:
        result = result / MMF_INPUT.scale(*size)
    return result


def overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of every pair of inclusive float64 boxes [R, 4] and [S, 4], [R, S].

    0 where a box isn't finite.
    """
    exclusive = [to_exclusive(torch.from_numpy(boxes)) for boxes in (a, b)]
    return np.nan_to_num(torchvision.ops.box_iou(*exclusive).numpy(), nan=0.0, posinf=0.0)


def greedy_pairs(iou: np.ndarray, least: float) -> Rows:
    """Pair rows and columns of ``iou`` [R, S] one to one, those that overlap most first.

    Of equal overlaps the one of the lowest row comes first, then of the lowest column. Pairs that
    overlap less than ``least`` are left out.
    """
    rows, columns = np.nonzero(iou >= least)
    order = np.argsort(-iou[rows, columns], kind="stable")
    partner: dict[int, int] = {}
    taken = set()
    for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        if row not in partner and column not in taken:
            partner[row] = column
            taken.add(column)
    matched = np.array(sorted(partner), dtype=np.int64)
    return matched, np.array([partner[row] for row in sorted(partner)], dtype=np.int64)


def _possible(boxes: Sequence[np.ndarray], exclusive: bool) -> list[Convention]:
    """The conventions that one store's boxes allow, the likeliest first.

    Without a coordinate above 2 they are normalised; if x2 or y2 lies before x1 or y1 in more than
    a tenth of them, they are x, y, width, height.
    """
    every = np.concatenate([np.empty((0, 4)), *boxes])
    every = every[np.isfinite(every).all(axis=1)]
    normalised = 0 < every.max(initial=0) <= _MOST_NORMALISED
    crossed = (every[:, 2:] < every[:, :2]).any(axis=1).sum() > 0.1 * len(every)
    return [
        Convention(layout, unit, exclusive and (layout, unit) == ("xyxy", "original"))
        for unit in (["normalised"] if normalised else ["original", "network"])
        for layout in (["xywh"] if crossed else ["xyxy", "xywh", "yxyx"])
    ]


def _with_ends(pairs: Sequence[BoxPair], conventions: Conventions, overlap: float) -> Conventions:
    """The conventions, one of them exclusive, or not, where boxes are the same only so."""
    a, b = conventions
    others = (a._replace(exclusive=not a.exclusive), b._replace(exclusive=not b.exclusive))
    candidates = (conventions, (a, others[1]), (others[0], b))
    for candidate in candidates:
        distances = np.concatenate([align(pair, candidate, overlap).distances for pair in pairs])
        if len(distances) >= _FEWEST_MATCHED and (distances < 0.05).mean() >= 0.8:
            return candidate
    return conventions
