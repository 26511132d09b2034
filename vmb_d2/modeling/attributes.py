"""Attributes of regions: their head, and what each lineage makes of its logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

MOST = 16  # attributes of a region


@dataclass(frozen=True)
class AttributeRule:
    """How attributes follow from a model's logits.

    Attributes:
        of_chosen_class: whether they are those of the class that a region was chosen for; else of
            the most probable one, the background among them.
        of_final_box: whether a regressed box is pooled again for them; else they are predicted from
            the stored feature.
        none_counts: whether "no attribute" takes part in the softmax.
        above: probabilities up to this become 0.
    """

    of_chosen_class: bool = False
    of_final_box: bool = False
    none_counts: bool = True
    above: float = 0.0


RULES = {
    "vinvl": AttributeRule(of_chosen_class=True, of_final_box=True, above=0.05),
    "frcnn_vg": AttributeRule(none_counts=False),
    "bua": AttributeRule(),
}


class AttributeHead(nn.Module):
    """Attributes of regions from their features and classes, as all lineages have them.

    Args:
        in_features: D of the region features.
        num_classes: K, without the background.
        num_attributes: A, without "no attribute".
        embedding_dimension: of a class.
        hidden_dimension: of the layer before the last.
        rule: how attributes follow from the logits.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        num_attributes: int,
        embedding_dimension: int,
        hidden_dimension: int,
        rule: AttributeRule,
    ):
        super().__init__()
        self.rule = rule
        self.cls_embedding = nn.Embedding(num_classes + 1, embedding_dimension)
        self.fc_attr = nn.Linear(in_features + embedding_dimension, hidden_dimension)
        self.attr_score = nn.Linear(hidden_dimension, num_attributes + 1)

    def forward(self, features: Tensor, classes: Tensor) -> Tensor:
        """Logits (R, A + 1), "no attribute" last.

        Args:
            features: (R, D).
            classes: int64 (R,), K for the background.
        """
        joined = torch.cat([features, self.cls_embedding(classes)], dim=1)
        return self.attr_score(self.fc_attr(joined).relu())


class Attributes(NamedTuple):
    """The most probable attributes of regions, at most :data:`MOST`, the most probable first.

    Attributes:
        ids: int64 (R, k), from 0, without "no attribute". Those with probability 0 mean nothing.
        scores: float32 (R, k), their probabilities.
    """

    ids: Tensor
    scores: Tensor


def most_probable(logits: Tensor, rule: AttributeRule) -> Attributes:
    """Of logits (R, A + 1), "no attribute" last."""
    if rule.none_counts:
        probabilities = logits.float().softmax(dim=1)[:, :-1]
    else:
        probabilities = logits.float()[:, :-1].softmax(dim=1)
    if rule.above:
        probabilities = probabilities.where(probabilities > rule.above, 0.0)
    number = min(MOST, probabilities.shape[1])
    scores, ids = probabilities.sort(dim=1, descending=True, stable=True)
    return Attributes(ids[:, :number], scores[:, :number])
