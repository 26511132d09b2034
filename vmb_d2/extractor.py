"""From preprocessed images to MMF's region features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from detectron2.structures import ImageList, Instances
from torch import Tensor

from .errors import ConfigError
from .images import NetworkImage
from .modeling import VMBRCNN
from .precision import full_float32
from .selection import select_regions


@dataclass(frozen=True)
class RegionFeatures:
    """Regions of one image, the most confident first, as MMF stores them.

    Attributes:
        features: float32 (N, D).
        bbox: float32 (N, 4), inclusive boxes in original pixels. They can reach past the image's
            edge, into the padding.
        num_boxes: how many of the N have a confidence above 0.
        objects: int64 (N,), index of the most probable class in ``cls_prob``.
        cls_prob: float32 (N, C); without the background (index 0 is VMB's class 1) unless the
            background was asked for (then it is column 0).
        image_width, image_height: in original pixels.
    """

    features: np.ndarray
    bbox: np.ndarray
    num_boxes: int
    objects: np.ndarray
    cls_prob: np.ndarray
    image_width: int
    image_height: int


@dataclass(frozen=True)
class RegionOptions:
    """Which features of which regions to give.

    Attributes:
        feature_name: one of the model's ``feature_names``; None for the first.
        num_features: how many regions to keep, if there are as many.
        confidence_threshold: see :func:`vmb_d2.selection.confidences`.
        background: let the background class take part and be column 0 of ``cls_prob``.

    Raises:
        ConfigError: a number is out of range.
    """

    feature_name: str | None = None
    num_features: int = 100
    confidence_threshold: float = 0.0
    background: bool = False

    def __post_init__(self):
        if self.num_features < 1:
            raise ConfigError(f"extract.num_features={self.num_features}: has to be at least 1")
        if not 0 <= self.confidence_threshold < 1:
            raise ConfigError(
                f"extract.confidence_threshold={self.confidence_threshold}: has to be in [0, 1)"
            )

    def choose_feature(self, feature_names: Sequence[str]) -> str:
        """``feature_name``, or the first where it is None. Raises ConfigError for any other."""
        name = self.feature_name or feature_names[0]
        if name not in feature_names:
            valid = ", ".join(feature_names)
            raise ConfigError(f"extract.feature_name={name}: this model has {valid}")
        return name


class RegionFeatureExtractor:
    """Runs a VMB model on images and keeps the most confident regions.

    Args:
        model: in evaluation mode, on its device.
        options: what to keep.

    Raises:
        ConfigError: the model doesn't have the feature asked for.
    """

    def __init__(self, model: VMBRCNN, options: RegionOptions | None = None):
        self.model = model
        self.options = options or RegionOptions()
        self.feature_name = self.options.choose_feature(model.feature_names)

    @torch.no_grad()
    def __call__(
        self, images: Sequence[NetworkImage], padded_size: tuple[int, int]
    ) -> list[RegionFeatures]:
        """Extract.

        Args:
            images: a batch.
            padded_size: (height, width) in network pixels, multiples of 32, to pad each image to.
                Proposals are clipped to it.
        """
        batch = pad(images, padded_size).to(self.model.device)
        with full_float32():
            regions = self.model.regions(batch, [self.feature_name])
        return [self._select(r, image) for r, image in zip(regions, images, strict=True)]

    def _select(self, regions: Instances, image: NetworkImage) -> RegionFeatures:
        boxes = regions.proposal_boxes.tensor / image.scale
        scores = self._scores(regions.class_logits)
        kept = select_regions(
            boxes, scores, self.options.num_features, self.options.confidence_threshold
        )
        scores = scores[kept.indices]
        return RegionFeatures(
            features=regions.get(self.feature_name)[kept.indices].float().cpu().numpy(),
            bbox=boxes[kept.indices].cpu().numpy(),
            num_boxes=kept.num_boxes,
            objects=scores.argmax(dim=1).cpu().numpy(),
            cls_prob=scores.cpu().numpy(),
            image_width=image.width,
            image_height=image.height,
        )

    def _scores(self, class_logits: Tensor) -> Tensor:
        """Probabilities (R, C) in MMF's columns."""
        probabilities = class_logits.float().softmax(dim=1)
        foreground, background = probabilities[:, :-1], probabilities[:, -1:]
        return torch.cat([background, foreground], dim=1) if self.options.background else foreground


def pad(images: Sequence[NetworkImage], size: tuple[int, int]) -> ImageList:
    """Images in the top left corners of zeros of ``size`` (height, width)."""
    tensor = torch.zeros((len(images), 3, *size))
    for target, image in zip(tensor, images, strict=True):
        height, width = image.tensor.shape[-2:]
        target[:, :height, :width] = image.tensor
    return ImageList(tensor, [tuple(image.tensor.shape[-2:]) for image in images])
