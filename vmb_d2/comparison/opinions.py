"""All opinions on one comparison."""

from __future__ import annotations

from . import box_rules, count_rules, feature_rules
from .compare import Comparison
from .diagnosis import Opinion, Rule

# Each rule, and the rules whose opinion makes its own superfluous: they come before it.
RULES: tuple[tuple[Rule, frozenset[str]], ...] = tuple(
    (rule, frozenset(superseded_by))
    for rule, *superseded_by in (
        (box_rules.image_size,),
        (box_rules.box_layout,),
        (box_rules.box_unit,),
        (box_rules.box_ends,),
        (box_rules.batch_clipping,),
        (box_rules.image_clipping,),
        (count_rules.num_features,),
        (count_rules.confidence_threshold,),
        (count_rules.num_boxes,),
        (count_rules.background,),
        (feature_rules.relu,),
        (feature_rules.layer, "relu"),
        (feature_rules.scaled_features,),
        (feature_rules.rounding,),
        (feature_rules.precision, "rounding", "scaled_features", "image_clipping"),
        (feature_rules.weights, "image_size"),
        (
            box_rules.selection,
            "batch_clipping",
            "image_clipping",
            "num_features",
            "confidence_threshold",
            "precision",
        ),
        (box_rules.order,),
    )
)


def opinions(comparison: Comparison) -> list[Opinion]:
    """What probably made the difference; several may hold at once."""
    found: dict[str, Opinion] = {}
    for rule, superseded_by in RULES:
        opinion = None if superseded_by & found.keys() else rule(comparison)
        if opinion:
            found[opinion.name] = opinion
    return list(found.values())
