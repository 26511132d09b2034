"""Going through two stores, one image of each at a time, and what counts as different."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from ..errors import ConfigError
from ..stores import FeatureReader
from ..structures.regions import RegionFeatures
from .alignment import Aligner, size_of
from .names import NamePairs, pair_names, spread
from .tallies import BoxTally, ClassTally, CountTally, FeatureTally, StoreTally


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
            raise ConfigError("must be above 0 and at most 1", field="iou", value=self.iou)
        if not 0 <= self.tolerance < np.inf:
            raise ConfigError("must be at least 0", field="tolerance", value=self.tolerance)
        if not 0 <= self.matched <= 1:
            raise ConfigError("must be from 0 to 1", field="matched", value=self.matched)
        if self.limit is not None and self.limit < 1:
            raise ConfigError("must be at least 1", field="limit", value=self.limit)


@dataclass
class Comparison:
    """What was found.

    Attributes:
        settings: by which it was done.
        names: which images are in both.
        compared: (name in A, name in B) of the images compared.
        stores: A's and B's own figures.
        counts, boxes, features, classes: of matched regions and what belongs to them.
        by_row: images of which A or B has no boxes, so that their rows were matched by position.
        other_sizes: images whose width or height is another in B.
    """

    settings: Settings
    names: NamePairs
    compared: list[tuple[str, str]]
    stores: tuple[StoreTally, StoreTally] = field(
        default_factory=lambda: (StoreTally(), StoreTally())
    )
    counts: CountTally = field(default_factory=CountTally)
    boxes: BoxTally = field(default_factory=BoxTally)
    features: FeatureTally = field(default_factory=FeatureTally)
    classes: ClassTally = field(default_factory=ClassTally)
    by_row: int = 0
    other_sizes: int = 0

    def add(self, image: int, a: RegionFeatures, b: RegionFeatures, aligner: Aligner) -> None:
        """Compare one image, which ``compared[image]`` names."""
        for store, regions in zip(self.stores, (a, b), strict=True):
            store.add(regions)
        if a.bbox is None or b.bbox is None:
            self.by_row += 1
            first = np.arange(min(len(a), len(b)))
            rows = first, first
        else:
            alignment = aligner.align(a, b)
            self.boxes.add(a, b, alignment)
            rows = alignment.rows
        sizes = size_of(a), size_of(b)
        self.other_sizes += None not in sizes and sizes[0] != sizes[1]
        self.counts.add(a, b, rows)
        self.features.add(image, a.features[rows[0]], b.features[rows[1]])
        self.classes.add(a, b, rows)

    @property
    def shares(self) -> tuple[float, float]:
        """The share of A's and of B's regions that is matched; 1 where there is none."""
        a, b = (self.counts.matched / s.regions if s.regions else 1.0 for s in self.stores)
        return a, b

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
    comparison = Comparison(settings, names, spread(names.pairs, settings.limit))
    aligner = Aligner(settings.iou)
    for image, (name_a, name_b) in enumerate(progress(comparison.compared)):
        comparison.add(image, a.read(name_a), b.read(name_b), aligner)
    return comparison


class Reason(NamedTuple):
    """One difference that counts: what it is in, and a sentence with the figures."""

    kind: str
    text: str


def counted(count: int, noun: str) -> str:
    """``1 image``, ``2 images``, ``2 boxes``."""
    plural = "es" if noun.endswith("x") else "s"
    return f"{count} {noun}{'' if count == 1 else plural}"


def reasons(c: Comparison) -> list[Reason]:
    """All differences that count, by the settings; none: the stores are the same."""
    found = (*_images(c), *_boxes(c), *_features(c), *_classes(c))
    return [Reason(kind, text) for kind, text in found]


def _images(c: Comparison) -> Iterator[tuple[str, str]]:
    only_a, only_b = len(c.names.only_a), len(c.names.only_b)
    if (only_a or only_b) and not c.settings.common_only:
        yield "images", f"images in one only: {only_a} in A, {only_b} in B"
    if not c.compared:
        yield "images", "no image is in both"
    if c.other_sizes:
        yield "image_size", f"{counted(c.other_sizes, 'image')} of another width or height"


def _boxes(c: Comparison) -> Iterator[tuple[str, str]]:
    if images := sum(count for (a, b), count in c.boxes.conventions.items() if a != b):
        yield "conventions", f"boxes are written in another way in {counted(images, 'image')}"
    share, least = min(c.shares), c.settings.matched
    if share < least:
        yield "boxes", f"{share:.2%} of the regions are matched, less than {least:.2%}"
    off, total = c.counts.num_boxes_off, max(store.num_boxes for store in c.stores)
    if c.num_boxes_known and total - off < least * total:
        yield "num_boxes", f"num_boxes is off by {off} of {total} in all"


def _features(c: Comparison) -> Iterator[tuple[str, str]]:
    features, most = c.features, c.settings.tolerance
    if features.incomparable:
        images = counted(features.incomparable, "image")
        yield "dimension", f"features have another dimension in {images}"
    if features.non_finite:
        regions = counted(features.non_finite, "matched region")
        yield "non_finite", f"{regions} with other NaNs or infinities"
    error = features.errors.quantile(0.99)
    if error > most:
        yield "features", f"99th percentile of the feature errors: {error:.1e}, above {most:.1e}"


def _classes(c: Comparison) -> Iterator[tuple[str, str]]:
    classes, most = c.classes, c.settings.tolerance
    if classes.same < c.settings.matched * classes.compared:
        yield "classes", f"{classes.same} of {classes.compared} matched regions have the same class"
    if columns := classes.columns_differ + sum(classes.background_column):
        yield "cls_prob", f"cls_prob has other columns in {counted(columns, 'image')}"
    difference = classes.probabilities.quantile(0.99)
    if difference > most:
        text = f"99th percentile of the differences in cls_prob: {difference:.1e}"
        yield "cls_prob", f"{text}, above {most:.1e}"
