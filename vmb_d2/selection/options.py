"""Which features of which regions to extract."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError

MIN_FEATURES, MAX_FEATURES = 10, 100  # of bottom-up attention


@dataclass(frozen=True)
class RegionOptions:
    """Which features of which regions to extract.

    Attributes:
        feature_names: of the model's ``feature_names``; empty for its first.
        num_features: number of regions to keep of an image, if there are as many.
        confidence_threshold: see :func:`vmb_d2.selection.most_confident.select_regions`.
        background: whether the background takes part as a class, and is column 0 of ``cls_prob``.
        min_features, max_features: where one of them is given, the number of regions depends on
            the threshold, see :func:`.most_confident.select_adaptively`, and the default of the
            other is 10 or 100.

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
            raise ConfigError("has to be at least 1", field="num_features", value=self.num_features)
        threshold = self.confidence_threshold
        if not 0 <= threshold < 1:
            raise ConfigError("has to be in [0, 1)", field="confidence_threshold", value=threshold)
        least, most = self.bounds or (0, 1)
        if not 0 <= least <= most or most < 1:
            raise ConfigError(
                f"`min_features`={least}, `max_features`={most}: have to be at least 0 and 1, the "
                "first at most the second"
            )

    @property
    def bounds(self) -> tuple[int, int] | None:
        """The smallest and largest number of regions where it is adaptive, else None."""
        if self.min_features is None and self.max_features is None:
            return None
        return (
            MIN_FEATURES if self.min_features is None else self.min_features,
            MAX_FEATURES if self.max_features is None else self.max_features,
        )

    @property
    def most_regions(self) -> int:
        """The largest number of regions of an image."""
        return self.bounds[1] if self.bounds else self.num_features

    def choose_features(self, valid: Sequence[str]) -> tuple[str, ...]:
        """``feature_names`` without repetitions, or the first of ``valid`` where it is empty.

        Raises ConfigError for one that isn't valid.
        """
        names = tuple(dict.fromkeys(self.feature_names)) or (valid[0],)
        for name in names:
            if name not in valid:
                raise ConfigError(f"`feature_name`={name}: this model has {', '.join(valid)}")
        return names

    def settings(self) -> dict[str, Any]:
        """All options that decide which regions are kept, as plain values."""
        least, most = self.bounds or (self.num_features, self.num_features)
        return {
            "min_features": least,
            "max_features": most,
            "adaptive": self.bounds is not None,
            "confidence_threshold": self.confidence_threshold,
            "background": self.background,
        }
