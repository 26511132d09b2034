"""The regions of one image: what the extraction gives, and what every format stores."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class RegionFeatures:
    """Regions of one image, the most confident first; given boxes in the order given.

    What the extraction makes is complete but for the attributes. What is read from a store has
    None where the store's format, or whoever wrote it, left something out.

    Attributes:
        features: float32 or float16 (N, D), the first of the features asked for.
        bbox: float32 (N, 4), inclusive boxes x1, y1, x2, y2 in original pixels. They can reach
            past the image's edge, into the padding.
        num_boxes: how many of the N have a confidence above 0; of given boxes, all.
        objects: int64 (N,), index of the most probable class in ``cls_prob``.
        cls_prob: float32 (N, C), probabilities; without the background (index 0 is VMB's class 1)
            unless the background was asked for (then it is column 0).
        image_width, image_height: in original pixels.
        objects_conf: float32 (N,), the probability of ``objects``. Left out, it is taken from
            ``cls_prob``.
        confidence: float32 (N,), by which the regions were chosen: the highest probability among
            the classes in which a region survived suppression, else 0. None for given boxes.
        class_logits: float32 (N, 1 + C), before the softmax, background first. Of given boxes only.
        attrs_id, attrs_conf: int64 (N,) and float32 (N,), attributes. VMB's models predict none;
            other extractors' files have them.
        further: the other features asked for, by name, each (N, D).
        extra: what a store of free keys holds beyond all these.
        choice_is_finite: False where they were chosen among proposals of which a box or a score
            isn't finite, or of which there is none.
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

        A box in the image stays as it is, to the bit. So do all where its size is unknown.
        """
        if self.bbox is None or self.image_width is None or self.image_height is None:
            return self
        last = np.array([self.image_width, self.image_height] * 2, self.bbox.dtype)
        bbox = np.where(self.bbox > last, last, self.bbox)
        bbox[bbox < 0] = 0
        return dataclasses.replace(self, bbox=bbox)

    def not_finite(self) -> str | None:
        """What of the features, boxes and scores isn't finite, in words; None: all is."""
        scores = {"bbox": self.bbox, "cls_prob": self.cls_prob, "class_logits": self.class_logits}
        for name, values in {"features": self.features, **self.further, **scores}.items():
            if values is not None and (count := values.size - int(np.isfinite(values).sum())):
                return f"{name}: {count} of {values.size} values are not finite"
        if not self.choice_is_finite:
            return "the proposals' boxes or scores are not finite"
        return None

    def normalized_boxes(self) -> np.ndarray | None:
        """The boxes as Oscar and UNITER have them; None where they or the image's size are unknown.

        Returns:
            float32 (N, 6): x1, y1, x2, y2, x2 - x1 and y2 - y1, as shares of the image's width and
            height.
        """
        if self.bbox is None or not (self.image_width and self.image_height):
            return None
        boxes = np.concatenate([self.bbox, self.bbox[:, 2:] - self.bbox[:, :2]], axis=1)
        return (boxes / np.tile([self.image_width, self.image_height], 3)).astype(np.float32)

    def with_feature(self, name: str | None) -> RegionFeatures:
        """The same regions with the feature ``name`` as ``features``, and no further ones.

        ``name`` is one of ``further``; None, or any other, stands for the first.
        """
        features = self.further.get(name, self.features)
        return dataclasses.replace(self, features=features, further={})
