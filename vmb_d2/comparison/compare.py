"""Comparing two stores, one image of each at a time, and whether they are the same."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from ..errors import ConfigError
from ..output.manifest import has_inclusive_boxes
from ..stores import FeatureReader
from ..structures.regions import RegionFeatures
from .alignment import Conventions, align, box_pair, find_conventions, size_of
from .names import NamePairs, pair_names, spread
from .tallies import BoxTally, ClassTally, FeatureTally, StoreTally

_SAMPLE = 20  # images from which the conventions of the boxes are found


@dataclass(frozen=True)
class Settings:
    """What counts as the same.

    Attributes:
        iou: the least overlap of boxes that are matched, above 0, at most 1.
        tolerance: the most that the 99th percentile of the features' relative errors, and of the
            differences of probabilities, may be.
        matched: the least share of regions that has to be matched, and of matched regions that has
            to have the same class.
        limit: compare so many images only.
        common_only: images in one store only make no difference.

    Raises:
        ConfigError: a value outside its range.
    """

    iou: float = 0.9
    tolerance: float = 1e-3
    matched: float = 0.99
    limit: int | None = None
    common_only: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.iou <= 1:
            raise ConfigError("has to be above 0 and at most 1", field="iou", value=self.iou)
        if not 0 <= self.tolerance < math.inf:
            raise ConfigError("has to be at least 0", field="tolerance", value=self.tolerance)
        if not 0 <= self.matched <= 1:
            raise ConfigError("has to be from 0 to 1", field="matched", value=self.matched)
        if self.limit is not None and self.limit < 1:
            raise ConfigError("has to be at least 1", field="limit", value=self.limit)


@dataclass
class Comparison:
    """What was found.

    Attributes:
        settings: by which it was done.
        names: which images are in both.
        compared: (name in A, name in B) of the images compared.
        conventions: in which A and B write their boxes.
        stores: A's and B's own figures.
        boxes, features, classes: of matched regions.
        matched: pairs of regions.
        fewer: regions of whichever store has fewer, image by image: the most that can be matched.
        lengths_differ: images with fewer regions in one store than in the other.
        num_boxes_off: by how much ``num_boxes`` differs, summed over the images.
        by_row: images of which A or B has no boxes, so that their rows were matched by position.
        other_sizes: names in A of the images whose width or height is another in B.
    """

    settings: Settings
    names: NamePairs
    compared: list[tuple[str, str]]
    conventions: Conventions
    stores: tuple[StoreTally, StoreTally] = field(
        default_factory=lambda: (StoreTally(), StoreTally())
    )
    boxes: BoxTally = field(default_factory=BoxTally)
    features: FeatureTally = field(default_factory=FeatureTally)
    classes: ClassTally = field(default_factory=ClassTally)
    matched: int = 0
    fewer: int = 0
    lengths_differ: int = 0
    num_boxes_off: int = 0
    by_row: int = 0
    other_sizes: list[str] = field(default_factory=list)

    def add(self, image: str, a: RegionFeatures, b: RegionFeatures) -> None:
        """Compare one image, called ``image`` in A."""
        self.stores[0].add(a)
        self.stores[1].add(b)
        if pair := box_pair(a, b):
            alignment = align(pair, self.conventions, self.settings.iou)
            self.boxes.add(pair, alignment)
            rows = alignment.rows
        else:
            self.by_row += 1
            common = np.arange(min(len(a), len(b)))
            rows = (common, common)
        sizes = size_of(a), size_of(b)
        if None not in sizes and sizes[0] != sizes[1]:
            self.other_sizes.append(image)
        self.matched += len(rows[0])
        self.fewer += min(len(a), len(b))
        self.lengths_differ += len(a) != len(b)
        self.num_boxes_off += abs(int(a.num_boxes) - int(b.num_boxes))
        self.features.add(image, a.features[rows[0]], b.features[rows[1]])
        self.classes.add(a, b, rows)

    @property
    def shares(self) -> tuple[float, float]:
        """The share of A's and of B's regions that is matched; 1 where there is none."""
        a, b = (self.matched / s.regions if s.regions else 1.0 for s in self.stores)
        return a, b

    @property
    def agreement(self) -> float:
        """The share of the regions that could be matched that is."""
        return self.matched / self.fewer if self.fewer else 1.0

    @property
    def num_boxes_known(self) -> bool:
        """Whether both stores say which regions count: not all of them in every image."""
        return not any(store.all_count for store in self.stores)


def compare(
    a: FeatureReader,
    b: FeatureReader,
    settings: Settings | None = None,
    progress: Callable[[list], Iterable] = iter,
) -> Comparison:
    """Compare two stores, in the order in which A is read fastest.

    Args:
        progress: wraps the list of the images, as tqdm does.

    Raises:
        StoreError: an image can't be read.
    """
    settings = settings or Settings()
    names = pair_names(a.names(), b.names())
    compared = spread(names.pairs, settings.limit)
    sample = [
        pair
        for name_a, name_b in spread(compared, _SAMPLE)
        if (pair := box_pair(a.read(name_a), b.read(name_b)))
    ]
    exclusive = not has_inclusive_boxes(a.path), not has_inclusive_boxes(b.path)
    conventions = find_conventions(sample, settings.iou, exclusive)
    comparison = Comparison(settings, names, compared, conventions)
    for name_a, name_b in progress(compared):
        comparison.add(name_a, a.read(name_a), b.read(name_b))
    return comparison


class Reason(NamedTuple):
    """One difference that counts: what it is in, and a sentence with the figures."""

    kind: str
    text: str


def counted(count: int, noun: str) -> str:
    """``1 image``, ``2 images``, ``2 boxes``."""
    plural = "es" if noun.endswith("x") else "s"
    return f"{count} {noun}{'' if count == 1 else plural}"


def reasons(c: Comparison) -> Iterator[Reason]:
    """All differences that count, by the settings; none: the stores are the same."""
    tolerance, features, classes = c.settings.tolerance, c.features, c.classes
    only_a, only_b = len(c.names.only_a), len(c.names.only_b)
    if (only_a or only_b) and not c.settings.common_only:
        yield Reason("images", f"images in one only: {only_a} in A, {only_b} in B")
    if not c.compared:
        yield Reason("images", "no image is in both")
    if c.other_sizes:
        images = counted(len(c.other_sizes), "image")
        text = f"{images} of another width or height, such as {c.other_sizes[0]}"
        yield Reason("image_size", text)
    if c.conventions[0] != c.conventions[1]:
        yield Reason("conventions", "boxes are written in another way")
    if min(c.shares) < c.settings.matched:
        share = f"{min(c.shares):.2%} of the regions are matched"
        yield Reason("boxes", f"{share}, less than {c.settings.matched:.2%}")
    total = max(store.num_boxes for store in c.stores)
    if c.num_boxes_known and total - c.num_boxes_off < c.settings.matched * total:
        yield Reason("num_boxes", f"num_boxes is off by {c.num_boxes_off} of {total} in all")
    if features.incomparable:
        images = counted(features.incomparable, "image")
        yield Reason("dimension", f"features have another dimension in {images}")
    if features.non_finite:
        regions = counted(features.non_finite, "matched region")
        yield Reason("non_finite", f"{regions} with other NaNs or infinities")
    if (error := features.errors.quantile(0.99)) > tolerance:
        text = f"99th percentile of the feature errors: {error:.1e}, above {tolerance:.1e}"
        yield Reason("features", text)
    if classes.same < c.settings.matched * classes.compared:
        text = f"{classes.same} of {classes.compared} matched regions have the same class"
        yield Reason("classes", text)
    if classes.columns_differ:
        images = counted(classes.columns_differ, "image")
        yield Reason("cls_prob", f"cls_prob has other columns in {images}")
    if (error := classes.probabilities.quantile(0.99)) > tolerance:
        text = f"99th percentile of the differences in cls_prob: {error:.1e}"
        yield Reason("cls_prob", f"{text}, above {tolerance:.1e}")
