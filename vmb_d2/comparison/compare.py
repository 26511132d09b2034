"""Going through two stores, one image of each at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from ..errors import ConfigError
from ..stores import FeatureReader
from ..structures.regions import RegionFeatures
from .alignment import Aligner, size_of
from .box_tally import BoxTally
from .class_tally import ClassTally
from .count_tally import CountTally
from .feature_tally import FeatureTally
from .names import NamePairs, pair_names, spread
from .tallies import StoreTally


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

    def __post_init__(self):
        if not 0 < self.iou <= 1:
            raise ConfigError(f"iou={self.iou}: must be above 0 and at most 1")
        if not 0 <= self.tolerance < np.inf:
            raise ConfigError(f"tolerance={self.tolerance}: must be at least 0")
        if not 0 <= self.matched <= 1:
            raise ConfigError(f"matched={self.matched}: must be from 0 to 1")
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"limit={self.limit}: must be at least 1")


@dataclass
class Comparison:
    """What was found; memory doesn't grow with the images, but for their names.

    Attributes:
        settings: by which it was done.
        names: which images are in both.
        compared: (name in A, name in B) of the images compared.
        stores: A's and B's own figures.
        counts, boxes, features, classes: of matched regions and what belongs to them.
        by_row: images of which A or B has no boxes, so that their rows were matched by position.
        other_sizes: images whose width or height is another in B, and the first one's index.
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
    first_other_size: int | None = None

    def add(self, image: int, a: RegionFeatures, b: RegionFeatures, aligner: Aligner) -> None:
        """Compare one image, which ``compared[image]`` names."""
        for store, regions in zip(self.stores, (a, b), strict=True):
            store.add(regions)
        if a.bbox is None or b.bbox is None:
            self.by_row += 1
            rows = (np.arange(min(len(a), len(b))),) * 2
        else:
            alignment = aligner(a, b)
            self.boxes.add(a, b, alignment)
            rows = alignment.rows
        sizes = size_of(a), size_of(b)
        if None not in sizes and sizes[0] != sizes[1]:
            self.other_sizes += 1
            if self.first_other_size is None:
                self.first_other_size = image
        self.counts.add(a, b, rows)
        self.features.add(image, a.features[rows[0]], b.features[rows[1]])
        self.classes.add(a, b, rows)


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
