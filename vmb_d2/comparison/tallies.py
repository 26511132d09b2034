"""What is seen of one store while its images are read."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from ..structures.regions import RegionFeatures

_BFLOAT16_LACKS = np.uint32(0xFFFF)  # the bits of a float32 that bfloat16 has not


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
        images: compared.
        regions: in these.
        fewest, most: regions in one image.
        all_count: whether ``num_boxes`` is the number of regions in every image. It is so too
            where the format doesn't keep it.
        kinds: how many images have features of (dtype, dimension).
        columns: how many images have ``cls_prob`` of that many columns.
        with_boxes, with_objects: images that have them.
        non_finite: regions with a NaN or an infinite feature. The next five leave them out.
        negative: whether a feature is below 0.
        values, zeros: numbers in the features; those that are 0.
        norms: smallest and largest L2 norm of a feature vector.
        float16, bfloat16: whether all values are ones of that format.
    """

    images: int = 0
    regions: int = 0
    fewest: int | None = None
    most: int | None = None
    all_count: bool = True
    kinds: Counter = field(default_factory=Counter)
    columns: Counter = field(default_factory=Counter)
    with_boxes: int = 0
    with_objects: int = 0
    non_finite: int = 0
    negative: bool = False
    values: int = 0
    zeros: int = 0
    norms: tuple[float, float] = (np.inf, 0.0)
    float16: bool = True
    bfloat16: bool = True

    def add(self, regions: RegionFeatures) -> None:
        """Count one image."""
        count, features = len(regions), regions.features
        self.images += 1
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
        if finite.any():
            self._add_values(features[finite].astype(np.float32))

    def _add_values(self, features: np.ndarray) -> None:
        self.negative = self.negative or bool((features < 0).any())
        self.values += features.size
        self.zeros += int((features == 0).sum())
        with np.errstate(over="ignore"):
            norms = np.linalg.norm(features, axis=1)
        self.norms = min(self.norms[0], float(norms.min())), max(self.norms[1], float(norms.max()))
        self.float16 = self.float16 and is_float16(features)
        self.bfloat16 = self.bfloat16 and is_bfloat16(features)

    @property
    def dimensions(self) -> list[int]:
        """The dimensions of the features that occur, sorted."""
        return sorted({dimension for _, dimension in self.kinds})

    @property
    def sparsity(self) -> float:
        """The share of the features' numbers that is 0."""
        return self.zeros / self.values if self.values else 0.0
