"""Figures of two stores, added up image by image. They take 16 bytes for each matched region."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch

from ..config.input_step import MMF_INPUT
from ..structures.box_geometry import VMB
from ..structures.regions import RegionFeatures
from .alignment import Alignment, BoxPair, Rows
from .fidelity import relative_errors

_LARGEST_ERROR = 1e9  # an error larger than this, that of a vector against zeros, counts as this
_MOVED = 1.0  # original pixels: a matched box this far away is another box
_MARGIN = 2.0  # original pixels past a border that don't count: conventions of the last pixel


class Values:
    """Numbers, float32, for their quantiles."""

    def __init__(self) -> None:
        self._parts: list[np.ndarray] = []

    def add(self, values: np.ndarray) -> None:
        """Add finite numbers [N]."""
        self._parts.append(values.astype(np.float32))

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def quantile(self, share: float) -> float:
        """The smallest value that at least ``share`` of all don't exceed; NaN of no values."""
        if not len(self):
            return math.nan
        return float(np.quantile(np.concatenate(self._parts), share, method="inverted_cdf"))

    def summary(self) -> dict[str, float | None]:
        """Median, 99th percentile and largest value; None of no values."""
        shares = {"median": 0.5, "p99": 0.99, "max": 1.0}
        return {key: self.quantile(share) if len(self) else None for key, share in shares.items()}


@dataclass
class StoreTally:
    """One store's compared images.

    Attributes:
        regions: in all images.
        fewest, most: regions in one image.
        num_boxes: in all images.
        all_count: whether ``num_boxes`` is the number of regions in every image. It is so too
            where the format doesn't keep it.
        kinds: dtypes and dimensions of features.
        columns: numbers of columns of ``cls_prob``.
        non_finite: regions with a NaN or an infinite feature.
        is_float16: whether all other features are float16 numbers, of whatever dtype.
    """

    regions: int = 0
    fewest: int | None = None
    most: int | None = None
    num_boxes: int = 0
    all_count: bool = True
    kinds: set[tuple[str, int]] = field(default_factory=set)
    columns: set[int] = field(default_factory=set)
    non_finite: int = 0
    is_float16: bool = True

    def add(self, regions: RegionFeatures) -> None:
        """Count one image."""
        count, features = len(regions), regions.features
        self.regions += count
        self.fewest = count if self.fewest is None else min(self.fewest, count)
        self.most = count if self.most is None else max(self.most, count)
        self.num_boxes += int(regions.num_boxes)
        self.all_count = self.all_count and regions.num_boxes == count
        self.kinds.add((features.dtype.name, features.shape[1]))
        if regions.cls_prob is not None:
            self.columns.add(regions.cls_prob.shape[1])
        finite = np.isfinite(features).all(axis=1)
        self.non_finite += int((~finite).sum())
        values = features[finite]
        with np.errstate(over="ignore"):
            self.is_float16 = self.is_float16 and np.array_equal(values.astype(np.float16), values)

    @property
    def regions_an_image(self) -> str:
        """``100``, ``10 to 100``, or ``-`` without images."""
        if self.fewest is None:
            return "-"
        return f"{self.fewest}" if self.fewest == self.most else f"{self.fewest} to {self.most}"


@dataclass
class BoxTally:
    """Images in which both stores have boxes.

    Attributes:
        distances: largest distance of a coordinate of each matched pair, original pixels.
        reordered: images in which the matched pairs come in another order.
        past_padding: boxes of A and of B that end past the image's own padded size and have no
            equal in the other store: clipped to the padded size of a batch with a larger image.
        farthest: largest x2 or y2, in network pixels.
    """

    distances: Values = field(default_factory=Values)
    reordered: int = 0
    past_padding: list[int] = field(default_factory=lambda: [0, 0])
    farthest: float = 0.0

    def add(self, pair: BoxPair, alignment: Alignment) -> None:
        """Count one image."""
        distances = alignment.distances
        self.distances.add(distances)
        self.reordered += bool((np.diff(alignment.rows[1]) < 0).any())
        if pair.size is None:
            return
        scale = MMF_INPUT.scale(*pair.size)
        padded = MMF_INPUT.padded_size(*MMF_INPUT.network_size(*pair.size))
        for store, boxes in enumerate(alignment.boxes):
            scaled = torch.from_numpy(boxes * scale)
            ends_past = ((scaled - VMB.clip(scaled, padded))[:, 2:] > _MARGIN * scale).any(dim=1)
            ends_past[alignment.rows[store][distances <= _MOVED]] = False
            self.past_padding[store] += int(ends_past.sum())
            self.farthest = max(self.farthest, float(scaled.numpy().max(initial=0)))


@dataclass
class FeatureTally:
    """Matched regions whose features have one dimension.

    Attributes:
        errors: L2 norm of the difference over that of A's vector.
        angles: 1 - cosine.
        worst: largest error, and the name in A of the image that has it.
        non_finite: regions with a NaN or an infinite number in A or B that are not equal; they
            count in nothing else.
        incomparable: images whose features have other dimensions in A than in B.
    """

    errors: Values = field(default_factory=Values)
    angles: Values = field(default_factory=Values)
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
        compared = finite | equal
        self.non_finite += int((~compared).sum())
        norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        with np.errstate(over="ignore", invalid="ignore"):
            errors = np.where(equal, 0, relative_errors(a, b))[compared].clip(max=_LARGEST_ERROR)
            cosines = (a * b).sum(axis=1) / np.maximum(norms, np.finfo(np.float64).tiny)
        self.errors.add(errors)
        self.angles.add(np.where(equal, 0, 1 - cosines)[compared].clip(min=0))
        if len(errors) and (self.worst is None or errors.max() > self.worst[0]):
            self.worst = (float(errors.max()), image)


@dataclass
class ClassTally:
    """Classes of matched regions, and their probabilities.

    Attributes:
        compared: pairs in which both have a class.
        same: of them with one class.
        one_more: of them in which the class of A is B's plus one, or 0; and in which B's is.
        probabilities: largest difference of a class's probability, of each pair with as many
            columns in A and B, or with one column, 0, more in one.
        columns_differ: images with other numbers of columns in A and B.
    """

    compared: int = 0
    same: int = 0
    one_more: list[int] = field(default_factory=lambda: [0, 0])
    probabilities: Values = field(default_factory=Values)
    columns_differ: int = 0

    def add(self, a: RegionFeatures, b: RegionFeatures, rows: Rows) -> None:
        """Compare the matched ``rows`` of A and B of one image."""
        if a.objects is not None and b.objects is not None:
            classes = a.objects[rows[0]], b.objects[rows[1]]
            self.compared += len(classes[0])
            self.same += int((classes[0] == classes[1]).sum())
            for store, (more, less) in enumerate((classes, classes[::-1])):
                self.one_more[store] += int(((more == less + 1) | (more == 0)).sum())
        if a.cls_prob is not None and b.cls_prob is not None:
            self._add_probabilities(a.cls_prob[rows[0]], b.cls_prob[rows[1]])

    def _add_probabilities(self, a: np.ndarray, b: np.ndarray) -> None:
        more = a.shape[1] - b.shape[1]
        self.columns_differ += more != 0
        if abs(more) > 1:
            return
        a, b = a[:, max(more, 0) :], b[:, max(-more, 0) :]
        difference = np.abs(a.astype(np.float64) - b.astype(np.float64)).max(axis=1, initial=0)
        self.probabilities.add(np.nan_to_num(difference, nan=1.0))
