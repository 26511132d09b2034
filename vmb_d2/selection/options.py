"""Which features of which regions to extract."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..config.read_out import READ_OUTS, ReadOut
from ..errors import ConfigError

MIN_FEATURES, MAX_FEATURES = 10, 100  # of bottom-up attention
WITH_BACKGROUND = ("mmf", "adaptive")


@dataclass(frozen=True)
class RegionOptions:
    """Which features of which regions to extract.

    Attributes:
        feature_names: of the model's ``feature_names``; empty for its first.
        read_out: how regions are chosen, of :data:`vmb_d2.config.read_out.READ_OUTS`; None for the
            model's own.
        num_features: number of regions to keep of an image, if there are as many; None for the
            read-out's.
        confidence_threshold: see :class:`vmb_d2.config.read_out.ReadOut`; None for the read-out's.
        background: whether the background takes part as a class, and is column 0 of ``cls_prob``.
        min_features, max_features: where one of them is given, the number of regions depends on
            the threshold, and the default of the other is 10 or 100; with the read-out ``"mmf"``
            they choose ``"adaptive"``.

    Raises:
        ConfigError: a number is out of range, or the name is none of a read-out.
    """

    feature_names: Sequence[str] = ()
    num_features: int | None = None
    confidence_threshold: float | None = None
    background: bool = False
    min_features: int | None = None
    max_features: int | None = None
    read_out: str | None = None

    def __post_init__(self) -> None:
        if self.num_features is not None and self.num_features < 1:
            raise ConfigError("has to be at least 1", field="num_features", value=self.num_features)
        threshold = self.confidence_threshold
        if threshold is not None and not 0 <= threshold < 1:
            raise ConfigError("has to be in [0, 1)", field="confidence_threshold", value=threshold)
        if self.read_out is not None and self.read_out not in READ_OUTS:
            raise ConfigError(field="read_out", value=self.read_out, valid=READ_OUTS)
        least, most = self._bounds or (0, 1)
        if not 0 <= least <= most or most < 1:
            raise ConfigError(
                f"`min_features`={least}, `max_features`={most}: have to be at least 0 and 1, the "
                "first at most the second"
            )

    @property
    def _bounds(self) -> tuple[int, int] | None:
        """``min_features`` and ``max_features`` where one of them is given."""
        if self.min_features is None and self.max_features is None:
            return None
        return (
            MIN_FEATURES if self.min_features is None else self.min_features,
            MAX_FEATURES if self.max_features is None else self.max_features,
        )

    def rule(self, of_model: ReadOut) -> ReadOut:
        """The read-out with the numbers of these options.

        Args:
            of_model: the model's own, for what these options leave open.

        Raises:
            ConfigError: the background is asked for and can't take part.
        """
        name = self.read_out or of_model.name
        if name == "mmf" and self._bounds:
            name = "adaptive"
        rule = of_model if name == of_model.name else READ_OUTS[name]
        if self.background and name not in WITH_BACKGROUND:
            raise ConfigError(
                f"can't take part in `read_out`={name}, only in {' and '.join(WITH_BACKGROUND)}",
                field="background",
                value="true",
            )
        least, most, threshold = rule.least, rule.most, self.confidence_threshold
        if self._bounds:
            least, most = self._bounds
        elif self.num_features is not None:
            least = most = self.num_features
        threshold = rule.threshold if threshold is None else threshold
        return replace(rule, least=least, most=most, threshold=threshold)

    def choose_features(self, valid: Sequence[str]) -> tuple[str, ...]:
        """``feature_names`` without repetitions, or the first of ``valid`` where it is empty.

        Raises ConfigError for one that isn't valid.
        """
        names = tuple(dict.fromkeys(self.feature_names)) or (valid[0],)
        for name in names:
            if name not in valid:
                raise ConfigError(f"`feature_name`={name}: this model has {', '.join(valid)}")
        return names

    def settings(self, of_model: ReadOut) -> dict[str, Any]:
        """All options that decide which regions are kept, as plain values.

        ``of_model``: the model's own read-out.
        """
        rule = self.rule(of_model)
        return {
            "read_out": rule.name,
            "min_features": rule.least,
            "max_features": rule.most,
            "confidence_threshold": rule.threshold,
            "background": self.background,
        }
