"""Opinions on what made two stores different, each with its evidence and what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from .compare import Comparison
from .verdict import Reason

STORES = ("A", "B")
# So few matched regions are no evidence.
FEW = 10

ALL = frozenset({"boxes", "features", "classes", "cls_prob", "num_boxes"})
# Differences that speak for themselves: an opinion on them is no loss.
_PLAIN = frozenset({"images"})


class Opinion(NamedTuple):
    """What probably made a difference.

    Attributes:
        name: of the rule.
        explains: the kinds of :class:`Reason` that it can account for.
        text: evidence, cause and remedy, in a sentence or two.
    """

    name: str
    explains: frozenset[str]
    text: str


Rule = Callable[[Comparison], "Opinion | None"]


def unexplained(found: list[Reason], opinions: list[Opinion]) -> list[str]:
    """The kinds of differences that no opinion accounts for, in the order of the reasons."""
    explained = _PLAIN.union(*(opinion.explains for opinion in opinions))
    return list(dict.fromkeys(r.kind for r in found if r.kind not in explained))


def features_agree(c: Comparison) -> bool:
    """Whether nine of ten matched regions, and ten or more, have the same features."""
    errors = c.features.errors
    return len(errors) >= FEW and errors.quantile(0.9) <= c.settings.tolerance


def features_unrelated(c: Comparison) -> bool:
    """Whether the features of most matched regions, ten or more, point in other directions."""
    angles = c.features.angles
    return len(angles) >= FEW and angles.quantile(0.5) > 0.1
