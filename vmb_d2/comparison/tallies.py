"""What is counted while two stores are read: for each store, and for their matched regions."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import torch

from ..data.preprocessing import LONG_SIDE, network_size, padded_size, resize_scale
from ..structures.box_geometry import clip
from ..structures.regions import RegionFeatures
from .alignment import Alignment, Conventions, Pair, Size, size_of
from .fidelity import relative_errors

_BFLOAT16_LACKS = np.uint32(0xFFFF)  # the bits of a float32 that bfloat16 has not
_MOST_ERROR = 1e9  # a larger error, that of a vector against zeros, counts as this
_MOVED = 1.0  # original pixels: a matched box this far away is another box
_MARGIN = 2.0  # original pixels past a border that don't count: conventions of the last pixel
_FEWEST_MATCHED = 3  # fewer tell nothing about a convention


class Values:
    """Numbers that are collected for their quantiles: 8 bytes each."""

    def __init__(self) -> None:
        self._parts: list[np.ndarray] = []

    def add(self, values: np.ndarray) -> None:
        """Add float values of any shape, none of them NaN."""
        self._parts.append(np.asarray(values, dtype=np.float64).ravel())

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def quantile(self, share: float) -> float:
        """The smallest value that at least ``share`` of all don't exceed; NaN of no values."""
        if not len(self):
            return np.nan
        self._parts = [np.concatenate(self._parts)]
        return float(np.quantile(self._parts[0], share, method="inverted_cdf"))

    def summary(self) -> dict[str, float | None]:
        """Median, 99th percentile and largest value; None of no values."""
        shares = {"median": 0.5, "p99": 0.99, "max": 1.0}
        return {key: self.quantile(share) if len(self) else None for key, share in shares.items()}


def is_float16(values: np.ndarray) -> bool:
    """Whether every one of the float32 values is one of float16's."""
    with np.errstate(over="ignore"):
        return np.array_equal(values.astype(np.float16).astype(np.float32), values)


def is_bfloat16(values: np.ndarray) -> bool:
    """Whether every one of the float32 values is one of bfloat16's."""
    return not (np.ascontiguousarray(values).view(np.uint32) & _BFLOAT16_LACKS).any()


@dataclass
class StoreTally:
    """Counts over the compared images of one store.

    Attributes:
        regions: in the images.
        counts: how many images have that many regions.
        num_boxes: summed over the images.
        all_count: whether ``num_boxes`` is the number of regions in every image. It is so too
            where the format doesn't keep it.
        kinds: how many images have features of (dtype, dimension).
        columns: how many images have ``cls_prob`` of that many columns.
        with_boxes, with_objects: images that have them.
        non_finite: regions with a NaN or an infinite feature. The next four leave them out.
        values, zeros: numbers in the features; those that are 0.
        negative: whether a feature is below 0.
        float16, bfloat16: whether all values are ones of that format.
    """

    regions: int = 0
    counts: Counter[int] = field(default_factory=Counter)
    num_boxes: int = 0
    all_count: bool = True
    kinds: Counter[tuple[str, int]] = field(default_factory=Counter)
    columns: Counter[int] = field(default_factory=Counter)
    with_boxes: int = 0
    with_objects: int = 0
    non_finite: int = 0
    values: int = 0
    zeros: int = 0
    negative: bool = False
    float16: bool = True
    bfloat16: bool = True

    def add(self, regions: RegionFeatures) -> None:
        """Count one image."""
        count, features = len(regions), regions.features
        self.regions += count
        self.counts[count] += 1
        self.num_boxes += int(regions.num_boxes)
        self.all_count = self.all_count and regions.num_boxes == count
        self.kinds[(features.dtype.name, features.shape[1])] += 1
        self.with_boxes += regions.bbox is not None
        self.with_objects += regions.objects is not None
        if regions.cls_prob is not None:
            self.columns[regions.cls_prob.shape[1]] += 1
        finite = np.isfinite(features).all(axis=1)
        self.non_finite += int((~finite).sum())
        if finite.any():
            values = features[finite].astype(np.float32)
            self.values += values.size
            self.zeros += int((values == 0).sum())
            self.negative = self.negative or bool((values < 0).any())
            self.float16 = self.float16 and is_float16(values)
            self.bfloat16 = self.bfloat16 and is_bfloat16(values)

    @property
    def dimensions(self) -> list[int]:
        """The dimensions of the features that occur, sorted."""
        return sorted({dimension for _, dimension in self.kinds})

    @property
    def zeros_share(self) -> float:
        """The share of the features' numbers that is 0."""
        return self.zeros / self.values if self.values else 0.0


@dataclass
class CountTally:
    """How many regions of the two stores are matched.

    Attributes:
        matched: pairs of regions.
        fewer: regions of whichever store has fewer, image by image: the most that can be matched.
        num_boxes_same: images with one ``num_boxes`` in A and B.
        num_boxes_off: by how much ``num_boxes`` differs, summed over the images.
        lengths_differ: images with fewer regions in one store than in the other.
        shorter_regions, shorter_matched: the regions of the shorter one of these images, and how
            many of them are matched.
        prefixes: images of ``lengths_differ`` in which the shorter is the longer's first rows.
    """

    matched: int = 0
    fewer: int = 0
    num_boxes_same: int = 0
    num_boxes_off: int = 0
    lengths_differ: int = 0
    shorter_regions: int = 0
    shorter_matched: int = 0
    prefixes: int = 0

    def add(self, a: RegionFeatures, b: RegionFeatures, rows: Pair) -> None:
        """Count one image; ``rows`` of A and B are matched with one another."""
        matched, fewer = len(rows[0]), min(len(a), len(b))
        self.matched += matched
        self.fewer += fewer
        off = abs(int(a.num_boxes) - int(b.num_boxes))
        self.num_boxes_same += off == 0
        self.num_boxes_off += off
        if len(a) != len(b):
            self.lengths_differ += 1
            self.shorter_regions += fewer
            self.shorter_matched += matched
            self.prefixes += bool((rows[0] < fewer).all() and (rows[1] < fewer).all())

    @property
    def agreement(self) -> float:
        """The share of the regions that could be matched that is."""
        return self.matched / self.fewer if self.fewer else 1.0


class BoxTally:
    """How the boxes of the two stores matched, and where the others end.

    Attributes:
        distances: largest distance of a coordinate of each matched pair, original pixels.
        conventions: how many images have A's and B's boxes in these conventions. Only those with
            three pairs or more count.
        reordered: images in which the matched pairs come in another order.
        past_padding: boxes of A and of B that end past the image's own padded size and have no
            equal in the other store. In the original, they were clipped to the padded size of a
            batch with a larger image.
        past_padding_images: in which there are such.
        past_all_padding: boxes that end past the padding of any batch. None of the original does.
        past_image: boxes of A and of B that end past the image but within its own padding.
        at_image: boxes of A and of B that end with the image.
    """

    def __init__(self) -> None:
        self.distances = Values()
        self.conventions: Counter[Conventions] = Counter()
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
        self.reordered += bool((np.diff(alignment.rows[1]) < 0).any())
        sizes = size_of(a), size_of(b)
        past_padding = 0
        for store, boxes in enumerate(alignment.boxes):
            size = sizes[store] or sizes[1 - store]
            if size is None:
                continue
            other = np.ones(len(boxes), dtype=bool)
            other[alignment.rows[store][distances <= _MOVED]] = False
            scale = resize_scale(*size)
            beyond = _ends_past(boxes, padded_size(*network_size(*size)), scale)
            anywhere = _ends_past(boxes, padded_size(LONG_SIDE, LONG_SIDE), scale)
            with_image = np.abs(boxes[:, 2:] - np.array(size)[::-1] + 0.5) < 0.6  # inclusive or not
            self.past_all_padding += int(anywhere.sum())
            self.past_image[store] += int((_ends_past(boxes, size, 1.0) & ~beyond).sum())
            self.at_image[store] += int(with_image.any(axis=1).sum())
            self.past_padding[store] += int((beyond & other).sum())
            past_padding += int((beyond & other).sum())
        self.past_padding_images += past_padding > 0


def _ends_past(boxes: np.ndarray, size: Size, scale: float) -> np.ndarray:
    """Bool (R,): which boxes, times ``scale``, end past (height, width) by more than the margin."""
    scaled = torch.from_numpy(boxes * scale)
    ends = (scaled - clip(scaled, size)).numpy()[:, 2:]
    return np.any(ends > _MARGIN * scale, axis=1)


class FeatureTally:
    """How far the features of matched regions are apart.

    Attributes:
        errors: L2 norm of the difference over that of A's vector.
        angles: 1 - cosine.
        worst: (largest error, index of the image that was given to :meth:`add` with it).
        non_finite: regions with a NaN or an infinite number in A or B that are not equal; they
            count in nothing else. Where both are equal they count with an error of 0.
        incomparable: images whose features have other dimensions in A than in B.
    """

    def __init__(self) -> None:
        self.errors = Values()
        self.angles = Values()
        self.worst: tuple[float, int] | None = None
        self.non_finite = 0
        self.incomparable = 0

    def add(self, image: int, a: np.ndarray, b: np.ndarray) -> None:
        """Compare the features (M, D) of one image's matched regions, row by row."""
        if a.shape[1] != b.shape[1]:
            self.incomparable += 1
            return
        a, b = a.astype(np.float64), b.astype(np.float64)
        finite = np.isfinite(a).all(axis=1) & np.isfinite(b).all(axis=1)
        equal = ((a == b) | (np.isnan(a) & np.isnan(b))).all(axis=1)
        self.non_finite += int((~finite & ~equal).sum())
        a, b = a[finite], b[finite]
        with np.errstate(over="ignore", invalid="ignore"):
            errors = np.nan_to_num(relative_errors(a, b), nan=_MOST_ERROR, posinf=_MOST_ERROR)
        errors = np.append(errors.clip(max=_MOST_ERROR), np.zeros(int((~finite & equal).sum())))
        self.errors.add(errors)
        self.angles.add(_angles(a, b))
        if len(errors) and (self.worst is None or errors.max() > self.worst[0]):
            self.worst = (float(errors.max()), image)


def _angles(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """1 - cosine of each row's pair, (M,); 0 of two zero vectors, 1 of one."""
    norms = np.stack([np.linalg.norm(x, axis=1) for x in (a, b)])
    with np.errstate(all="ignore"):
        chord = np.linalg.norm(a / norms[0][:, None] - b / norms[1][:, None], axis=1)
    angles = np.nan_to_num(chord**2 / 2, nan=1.0)  # unlike 1 - a.b, exact for small angles
    return np.where((norms == 0).any(axis=0), (norms > 0).any(axis=0), angles)


class ClassTally:
    """Whether matched regions have the same classes, with the same probabilities.

    Attributes:
        compared: pairs in which both have a class.
        same: of them with one class.
        one_more: of them in which the class of A is B's plus one, and in which B's is A's.
        one_more_or_0: the same, or the class is 0 (the background, where it is column 0).
        probabilities: largest difference of a class's probability, of each pair with as many
            columns in A and B, or with one column, 0, more in one.
        columns_differ: images with other numbers of columns, but for
        background_column: images with one column more in A, and in B.
    """

    def __init__(self) -> None:
        self.compared = 0
        self.same = 0
        self.one_more = [0, 0]
        self.one_more_or_0 = [0, 0]
        self.probabilities = Values()
        self.columns_differ = 0
        self.background_column = [0, 0]

    def add(self, a: RegionFeatures, b: RegionFeatures, rows: Pair) -> None:
        """Compare the matched ``rows`` of A and B of one image."""
        if a.objects is not None and b.objects is not None:
            self._add_classes(a.objects[rows[0]], b.objects[rows[1]])
        if a.cls_prob is not None and b.cls_prob is not None:
            self._add_probabilities(a.cls_prob[rows[0]], b.cls_prob[rows[1]])

    def _add_classes(self, a: np.ndarray, b: np.ndarray) -> None:
        self.compared += len(a)
        self.same += int((a == b).sum())
        for store, (more, less) in enumerate(((a, b), (b, a))):
            self.one_more[store] += int((more == less + 1).sum())
            self.one_more_or_0[store] += int(((more == less + 1) | (more == 0)).sum())

    def _add_probabilities(self, a: np.ndarray, b: np.ndarray) -> None:
        more = a.shape[1] - b.shape[1]
        if abs(more) > 1:
            self.columns_differ += 1
            return
        if more:
            self.background_column[0 if more == 1 else 1] += 1
            columns = min(a.shape[1], b.shape[1])
            a, b = a[:, -columns:], b[:, -columns:]
        difference = np.abs(a.astype(np.float64) - b.astype(np.float64)).max(axis=1, initial=0)
        self.probabilities.add(np.nan_to_num(difference, nan=1.0))
