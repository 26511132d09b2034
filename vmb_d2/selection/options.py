"""Which features of which regions to give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError

if TYPE_CHECKING:  # checking options takes no torch
    from torch import Tensor

    from .most_confident import Selection

# Bottom-up attention's bounds.
MIN_FEATURES, MAX_FEATURES = 10, 100


@dataclass(frozen=True)
class RegionOptions:
    """Which features of which regions to give.

    Attributes:
        feature_names: of the model's ``feature_names``; empty for its first.
        num_features: how many regions to keep, if there are as many.
        confidence_threshold: see :func:`vmb_d2.selection.most_confident.select_regions`.
        background: let the background class take part and be column 0 of ``cls_prob``.
        min_features, max_features: either one given, the number of regions follows the threshold
            instead, see :func:`.most_confident.select_adaptively`; the other is then 10 or 100.

    Raises:
        ConfigError: a number is out of range.
    """

    feature_names: Sequence[str] = ()
    num_features: int = 100
    confidence_threshold: float = 0.0
    background: bool = False
    min_features: int | None = None
    max_features: int | None = None

    def __post_init__(self):
        if self.num_features < 1:
            raise ConfigError(f"extract.num_features={self.num_features}: has to be at least 1")
        if not 0 <= self.confidence_threshold < 1:
            raise ConfigError(
                f"extract.confidence_threshold={self.confidence_threshold}: has to be in [0, 1)"
            )
        least, most = self.bounds or (0, 1)
        if not 0 <= least <= most or most < 1:
            raise ConfigError(
                f"extract.min_features={least}, extract.max_features={most}: have to be at least "
                "0 and 1, the first at most the second"
            )

    @property
    def bounds(self) -> tuple[int, int] | None:
        """The least and the most regions where the number is adaptive, else None."""
        if self.min_features is None and self.max_features is None:
            return None
        return (
            MIN_FEATURES if self.min_features is None else self.min_features,
            MAX_FEATURES if self.max_features is None else self.max_features,
        )

    @property
    def most_regions(self) -> int:
        """How many regions an image can have."""
        return self.bounds[1] if self.bounds else self.num_features

    def choose_features(self, valid: Sequence[str]) -> tuple[str, ...]:
        """``feature_names`` without repetitions, or the first of ``valid`` where it is empty.

        Raises ConfigError for one that isn't valid.
        """
        names = tuple(dict.fromkeys(self.feature_names)) or (valid[0],)
        for name in names:
            if name not in valid:
                raise ConfigError(f"extract.feature_name={name}: this model has {', '.join(valid)}")
        return names

    def select(self, boxes: Tensor, scores: Tensor) -> Selection:
        """The regions to keep, of inclusive ``boxes`` (R, 4) in original pixels and ``scores``."""
        return self.select_of_each([boxes], [scores])[0]

    def select_of_each(self, boxes: Sequence[Tensor], scores: Sequence[Tensor]) -> list[Selection]:
        """The same for each image of a batch."""
        from .most_confident import select_adaptively_of_each, select_regions_of_each

        threshold = self.confidence_threshold
        if self.bounds:
            return select_adaptively_of_each(boxes, scores, *self.bounds, threshold)
        return select_regions_of_each(boxes, scores, self.num_features, threshold)

    def settings(self) -> dict[str, Any]:
        """All that decides about the regions, as plain values."""
        least, most = self.bounds or (self.num_features, self.num_features)
        return {
            "min_features": least,
            "max_features": most,
            "adaptive": self.bounds is not None,
            "confidence_threshold": self.confidence_threshold,
            "background": self.background,
        }
