"""Counts over the images of two stores. Their memory doesn't grow with the images."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import torch

from ..data.preprocessing import LONG_SIDE, network_size, padded_size, resize_scale
from ..structures.box_geometry import clip
from ..structures.regions import RegionFeatures
from .alignment import Alignment, BoxPair, Rows, Size
from .fidelity import relative_errors
from .quantiles import LogHistogram

LOWER_PRECISION = {"float16": torch.float16, "bfloat16": torch.bfloat16}
_LARGEST_ERROR = 1e9  # an error larger than this, that of a vector against zeros, counts as this
_MOVED = 1.0  # original pixels: a matched box this far away is another box
_MARGIN = 2.0  # original pixels past a border that don't count: conventions of the last pixel


@dataclass
class StoreTally:
    """One store's compared images.

    Attributes:
        regions: in all images.
        fewest, most: regions in one image.
        all_count: whether ``num_boxes`` is the number of regions in every image. It is so too
            where the format doesn't keep it.
        kinds: how many images have features of (dtype, dimension).
        columns: how many images have ``cls_prob`` of that many columns.
        with_boxes, with_objects: images that have them.
        non_finite: regions with a NaN or an infinite feature. The rest leaves them out.
        values, zeros: numbers in the features; those that are 0.
        precisions: the keys of :data:`LOWER_PRECISION` whose numbers all features are.
    """

    regions: int = 0
    fewest: int | None = None
    most: int | None = None
    all_count: bool = True
    kinds: Counter = field(default_factory=Counter)
    columns: Counter = field(default_factory=Counter)
    with_boxes: int = 0
    with_objects: int = 0
    non_finite: int = 0
    values: int = 0
    zeros: int = 0
    precisions: set[str] = field(default_factory=lambda: set(LOWER_PRECISION))

    def add(self, regions: RegionFeatures) -> None:
        """Count one image."""
        count, features = len(regions), regions.features
        self.regions += count
        self.fewest = count if self.fewest is None else min(self.fewest, count)
        self.most = count if self.most is None else max(self.most, count)
        self.all_count = self.all_count and regions.num_boxes == count
        self.kinds[(features.dtype.name, features.shape[1])] += 1
        self.with_boxes += regions.bbox is not None
        self.with_objects += regions.objects is not None
        if regions.cls_prob is not None:
            self.columns[regions.cls_prob.shape[1]] += 1
        finite = np.isfinite(features).all(axis=1)
        self.non_finite += int((~finite).sum())
        values = torch.from_numpy(features[finite].astype(np.float32))
        self.values += values.numel()
        self.zeros += int((values == 0).sum())
        self.precisions = {
            name
            for name in self.precisions
            if torch.equal(values.to(LOWER_PRECISION[name]).float(), values)
        }

    @property
    def zeros_share(self) -> float:
        return self.zeros / self.values if self.values else 0.0


@dataclass
class CountTally:
    """How many regions the stores have of each image, and how many of them are matched.

    Attributes:
        regions: of A and of B.
        matched: pairs of regions.
        fewer: regions of whichever store has fewer, image by image: the most that can be matched.
        num_boxes: of A and of B, summed over the images.
        num_boxes_same: images with one ``num_boxes`` in A and B.
        num_boxes_off: by how much ``num_boxes`` differs, summed over the images.
        lengths_differ: images with fewer regions in one store than in the other.
        shorter_regions, shorter_matched: the regions of the shorter one of these images, and how
            many of them are matched.
        confident_differ: images with as many regions in both but another ``num_boxes``.
        confident_regions, confident_matched: in these the regions that count in both stores, and
            how many of them are matched with one another.
    """

    regions: tuple[int, int] = (0, 0)
    matched: int = 0
    fewer: int = 0
    num_boxes: tuple[int, int] = (0, 0)
    num_boxes_same: int = 0
    num_boxes_off: int = 0
    lengths_differ: int = 0
    shorter_regions: int = 0
    shorter_matched: int = 0
    confident_differ: int = 0
    confident_regions: int = 0
    confident_matched: int = 0

    def add(self, a: RegionFeatures, b: RegionFeatures, rows: Rows) -> None:
        """Count one image; ``rows`` of A and B are matched with one another."""
        matched, fewer = len(rows[0]), min(len(a), len(b))
        self.regions = self.regions[0] + len(a), self.regions[1] + len(b)
        self.matched += matched
        self.fewer += fewer
        counts = int(a.num_boxes), int(b.num_boxes)
        off = abs(counts[0] - counts[1])
        self.num_boxes = self.num_boxes[0] + counts[0], self.num_boxes[1] + counts[1]
        self.num_boxes_same += off == 0
        self.num_boxes_off += off
        if len(a) != len(b):
            self.lengths_differ += 1
            self.shorter_regions += fewer
            self.shorter_matched += matched
        elif off:
            self.confident_differ += 1
            self.confident_regions += min(counts)
            confident = (rows[0] < min(counts)) & (rows[1] < min(counts))
            self.confident_matched += int(confident.sum())

    @property
    def shares(self) -> tuple[float, float]:
        """The share of A's and of B's regions that is matched; 1 where there is none."""
        a, b = (self.matched / count if count else 1.0 for count in self.regions)
        return a, b

    @property
    def agreement(self) -> float:
        """The share of the regions that could be matched that is."""
        return self.matched / self.fewer if self.fewer else 1.0


@dataclass
class BoxTally:
    """Images in which both stores have boxes.

    Attributes:
        distances: largest distance of a coordinate of each matched pair, original pixels.
        reordered: images in which the matched pairs come in another order.
        past_image: boxes of A and of B that end past the image but within its own padding.
        at_image: boxes of A and of B that end with the image.
        past_padding: boxes of A and of B that end past the image's own padded size and have no
            equal in the other store. Clipped to the padded size of a batch with a larger image.
        past_any_padding: boxes that end past the padded size of every image there is.
    """

    distances: LogHistogram = field(default_factory=LogHistogram)
    reordered: int = 0
    past_image: list[int] = field(default_factory=lambda: [0, 0])
    at_image: list[int] = field(default_factory=lambda: [0, 0])
    past_padding: list[int] = field(default_factory=lambda: [0, 0])
    past_any_padding: int = 0

    def add(self, pair: BoxPair, alignment: Alignment) -> None:
        """Count one image."""
        distances = alignment.distances
        self.distances.add(distances)
        self.reordered += bool((np.diff(alignment.rows[1]) < 0).any())
        for store, (boxes, size) in enumerate(zip(alignment.boxes, pair.sizes, strict=True)):
            if size is None:
                continue
            scale = resize_scale(*size)
            other = np.ones(len(boxes), dtype=bool)
            other[alignment.rows[store][distances <= _MOVED]] = False
            past_padding = _ends_past(boxes, padded_size(*network_size(*size)), scale)
            past_any = _ends_past(boxes, padded_size(LONG_SIDE, LONG_SIDE), scale)
            past_image = _ends_past(boxes, size) & ~past_padding
            at_image = np.abs(boxes[:, 2:] - np.array(size)[::-1] + 0.5) < 0.6  # inclusive or not
            self.past_image[store] += int(past_image.sum())
            self.at_image[store] += int(at_image.any(axis=1).sum())
            self.past_padding[store] += int((past_padding & other).sum())
            self.past_any_padding += int(past_any.sum())


def _ends_past(boxes: np.ndarray, size: Size, scale: float = 1.0) -> np.ndarray:
    """Bool [R]: which boxes, times ``scale``, end more than the margin past ``size``."""
    scaled = torch.from_numpy(boxes * scale)
    ends = (scaled - clip(scaled, size))[:, 2:]
    return (ends > _MARGIN * scale).any(dim=1).numpy()


@dataclass
class FeatureTally:
    """Matched regions whose features have one dimension.

    Attributes:
        errors: L2 norm of the difference over that of A's vector.
        angles: 1 - cosine.
        worst: largest error, and the name in A of the image that has it.
        non_finite: regions with a NaN or an infinite number in A or B that are not equal; they
            count in nothing else. Where both are equal they count with an error of 0.
        incomparable: images whose features have other dimensions in A than in B.
    """

    errors: LogHistogram = field(default_factory=LogHistogram)
    angles: LogHistogram = field(default_factory=LogHistogram)
    worst: tuple[float, str] | None = None
    non_finite: int = 0
    incomparable: int = 0

    def add(self, image: str, a: np.ndarray, b: np.ndarray) -> None:
        """Compare the features [M, D] of one image's matched regions, row by row."""
        if a.shape[1] != b.shape[1]:
            self.incomparable += 1
            return
        a, b = a.astype(np.float64), b.astype(np.float64)
        finite = np.isfinite(a).all(axis=1) & np.isfinite(b).all(axis=1)
        equal = ((a == b) | (np.isnan(a) & np.isnan(b))).all(axis=1)
        self.non_finite += int((~finite & ~equal).sum())
        with np.errstate(over="ignore", invalid="ignore"):
            errors = np.where(equal, 0.0, relative_errors(a, b))[finite | equal]
        errors = np.nan_to_num(errors, nan=_LARGEST_ERROR).clip(max=_LARGEST_ERROR)
        self.errors.add(errors)
        self.angles.add(_angles(a[finite], b[finite]))
        if len(errors) and (self.worst is None or errors.max() > self.worst[0]):
            self.worst = (float(errors.max()), image)


def _angles(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """1 - cosine of each row's pair, [M]; 0 of two zero vectors, 1 of one."""
    norms = np.stack([np.linalg.norm(x, axis=1) for x in (a, b)])
    with np.errstate(all="ignore"):
        chord = np.linalg.norm(a / norms[0][:, None] - b / norms[1][:, None], axis=1)
    angles = np.nan_to_num(chord**2 / 2, nan=1.0)  # unlike 1 - a.b, exact for small angles
    return np.where((norms == 0).any(axis=0), (norms > 0).any(axis=0), angles)


@dataclass
class ClassTally:
    """Classes of matched regions, and their probabilities.

    Attributes:
        compared: pairs in which both have a class.
        same: of them with one class.
        one_more: of them in which the class of A is B's plus one, and in which B's is A's.
        one_more_or_0: the same, or the class is 0 (the background, where it is column 0).
        probabilities: largest difference of a class's probability, of each pair with as many
            columns in A and B, or with one column, 0, more in one.
        columns_differ: images with other numbers of columns in A and B.
        background_column: of these, images with one column more in A, and in B.
    """

    compared: int = 0
    same: int = 0
    one_more: list[int] = field(default_factory=lambda: [0, 0])
    one_more_or_0: list[int] = field(default_factory=lambda: [0, 0])
    probabilities: LogHistogram = field(default_factory=LogHistogram)
    columns_differ: int = 0
    background_column: list[int] = field(default_factory=lambda: [0, 0])

    def add(self, a: RegionFeatures, b: RegionFeatures, rows: Rows) -> None:
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
        self.columns_differ += more != 0
        if abs(more) > 1:
            return
        if more:
            self.background_column[0 if more > 0 else 1] += 1
            a, b = a[:, max(more, 0) :], b[:, max(-more, 0) :]
        difference = np.abs(a.astype(np.float64) - b.astype(np.float64)).max(axis=1, initial=0)
        self.probabilities.add(np.nan_to_num(difference, nan=1.0))
