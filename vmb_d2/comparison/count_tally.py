"""How many regions the two stores have of each image, and which of them are matched."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..structures.regions import RegionFeatures


@dataclass
class CountTally:
    """Counts over the compared images.

    Attributes:
        images: compared.
        regions: of A and of B.
        matched: pairs of regions.
        fewer: regions of whichever store has fewer, image by image: the most that can be matched.
        num_boxes: of A and of B, summed over the images.
        num_boxes_same: images with one ``num_boxes`` in A and B.
        num_boxes_off: by how much ``num_boxes`` differs, summed over the images.
        lengths_differ: images with fewer regions in one store than in the other.
        shorter_regions, shorter_matched: the regions of the shorter one of these images, and how
            many of them are matched.
        prefixes: images of ``lengths_differ`` in which the shorter is the longer's first rows.
        confident_differ: images with as many regions in both but another ``num_boxes``.
        confident_regions, confident_matched: in these the regions that count in both stores, and
            how many of them are matched with one another.
    """

    images: int = 0
    regions: tuple[int, int] = (0, 0)
    matched: int = 0
    fewer: int = 0
    num_boxes: tuple[int, int] = (0, 0)
    num_boxes_same: int = 0
    num_boxes_off: int = 0
    lengths_differ: int = 0
    shorter_regions: int = 0
    shorter_matched: int = 0
    prefixes: int = 0
    confident_differ: int = 0
    confident_regions: int = 0
    confident_matched: int = 0

    def add(
        self, a: RegionFeatures, b: RegionFeatures, rows: tuple[np.ndarray, np.ndarray]
    ) -> None:
        """Count one image; ``rows`` of A and B are matched with one another."""
        matched, fewer = len(rows[0]), min(len(a), len(b))
        self.images += 1
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
            self.prefixes += _among_first(fewer, rows) == matched
        elif off:
            self.confident_differ += 1
            self.confident_regions += min(counts)
            self.confident_matched += _among_first(min(counts), rows)

    @property
    def shares(self) -> tuple[float, float]:
        """The share of A's and of B's regions that is matched; 1 where there is none."""
        return tuple(self.matched / count if count else 1.0 for count in self.regions)

    @property
    def agreement(self) -> float:
        """The share of the regions that could be matched that is."""
        return self.matched / self.fewer if self.fewer else 1.0


def _among_first(count: int, rows: tuple[np.ndarray, np.ndarray]) -> int:
    """How many of the pairs are among the first ``count`` rows of both stores."""
    return int(((rows[0] < count) & (rows[1] < count)).sum())
