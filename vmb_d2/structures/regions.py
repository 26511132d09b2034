"""The regions of one image, as extracted and as stored in every format."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class RegionFeatures:
    """Regions of one image, in the order of the read-out; given boxes in the order given.

    The extraction sets every field, the attributes where the model predicts them. Fields that a
    store's format doesn't have, or that were not written, are None when read.

    Attributes:
        features: float32 or float16 (N, D), the first of the features asked for.
        bbox: float32 (N, 4), boxes x1, y1, x2, y2 in original pixels, as the original gives them
            out: inclusive, of ``frcnn_vg`` exclusive. VMB's can reach past the image's edge, into
            the padding.
        num_boxes: number of regions whose confidence is above 0; for given boxes N.
        objects: int64 (N,), index in ``cls_prob`` of the class that a region was chosen for, or of
            the most probable one, as the read-out has it.
        cls_prob: float32 (N, C), probabilities. Column 0 is the background where the option
            ``background`` was set, otherwise the original's first class.
        image_width, image_height: in original pixels.
        objects_conf: float32 (N,), the probability of ``objects``. Where it isn't given, it is
            computed from ``cls_prob``.
        confidence: float32 (N,), by which the regions were chosen: the highest probability among
            the classes in which a region survived suppression, 0 if there is none. None for given
            boxes.
        class_logits: float32 (N, 1 + C), before the softmax, background first. For given boxes
            only.
        attrs_id, attrs_conf: int64 (N,) and float32 (N,), the most probable attribute and its
            probability; a probability of 0: none. None for models that predict no attributes.
        attribute_ids, attribute_scores: int64 and float32 (N, k), the most probable attributes and
            their probabilities, falling.
        further: the other features asked for, by name, each (N, D).
        extra: further keys of a store whose format allows them.
        choice_is_finite: False where a box or a score of the proposals is not finite, or there are
            no proposals. It is not stored.
    """

    features: np.ndarray
    bbox: np.ndarray | None
    num_boxes: int
    objects: np.ndarray | None
    cls_prob: np.ndarray | None
    image_width: int | None
    image_height: int | None
    objects_conf: np.ndarray | None = None
    confidence: np.ndarray | None = None
    class_logits: np.ndarray | None = None
    attrs_id: np.ndarray | None = None
    attrs_conf: np.ndarray | None = None
    attribute_ids: np.ndarray | None = None
    attribute_scores: np.ndarray | None = None
    further: Mapping[str, np.ndarray] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
    choice_is_finite: bool = True

    def __post_init__(self):
        if self.objects_conf is None and self.cls_prob is not None:
            object.__setattr__(self, "objects_conf", self.cls_prob.max(axis=1, initial=0))

    def __len__(self) -> int:
        return len(self.features)

    def clipped(self) -> RegionFeatures:
        """The same regions with boxes clipped to the image: x to [0, width], y to [0, height].

        Boxes inside the image are not changed; neither are boxes of an image of unknown size.
        """
        if self.bbox is None or self.image_width is None or self.image_height is None:
            return self
        last = np.array([self.image_width, self.image_height] * 2, self.bbox.dtype)
        bbox = np.where(self.bbox > last, last, self.bbox)
        bbox[bbox < 0] = 0
        return dataclasses.replace(self, bbox=bbox)

    def not_finite(self) -> str | None:
        """Which features, boxes or scores are not finite, in words; None where all are."""
        scores = {"bbox": self.bbox, "cls_prob": self.cls_prob, "class_logits": self.class_logits}
        for name, values in {"features": self.features, **self.further, **scores}.items():
            if values is not None and (count := values.size - int(np.isfinite(values).sum())):
                return f"{name}: {count} of {values.size} values are not finite"
        if not self.choice_is_finite:
            return "the proposals' boxes or scores are not finite"
        return None

    def normalized_boxes(self) -> np.ndarray | None:
        """The boxes in the form of Oscar and UNITER.

        Returns:
            float32 (N, 6): x1, y1, x2, y2, x2 - x1 and y2 - y1, divided by the image's width or
            height. None where boxes or image size are unknown.
        """
        if self.bbox is None or not (self.image_width and self.image_height):
            return None
        boxes = np.concatenate([self.bbox, self.bbox[:, 2:] - self.bbox[:, :2]], axis=1)
        return (boxes / np.tile([self.image_width, self.image_height], 3)).astype(np.float32)

    def top_attributes(self) -> tuple[np.ndarray, np.ndarray] | None:
        """The most probable attributes that are known, and their probabilities.

        Returns:
            (N, k) each, falling: ``attribute_ids`` and ``attribute_scores``, else ``attrs_id`` and
            ``attrs_conf`` with k = 1. None where there are neither.
        """
        if self.attribute_ids is not None and self.attribute_scores is not None:
            return self.attribute_ids, self.attribute_scores
        if self.attrs_id is not None and self.attrs_conf is not None:
            return self.attrs_id[:, None], self.attrs_conf[:, None]
        return None

    def with_feature(self, name: str | None) -> RegionFeatures:
        """The same regions with the feature ``name`` as ``features``, without ``further`` ones.

        Where ``name`` is None or not in ``further``, ``features`` stays.
        """
        features = self.features if name is None else self.further.get(name, self.features)
        return dataclasses.replace(self, features=features, further={})
