"""The original's loop on this project's network, to be held against.

MMF's ``extract_features_vmb.py`` at its default: one image at a time, a call of NMS for each class,
two files written with ``np.save``. Regions are pooled by torchvision's kernel, which comes from the
original's: on a CPU one loop over all numbers in one thread.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.layers import ROIAlign
from detectron2.structures import Instances
from torch import Tensor, nn

from vmb_d2.data.preprocessing import NetworkImage
from vmb_d2.extractor import RegionFeatureExtractor
from vmb_d2.modeling.poolers import BagROIAlign
from vmb_d2.selection.most_confident import NMS_THRESHOLD
from vmb_d2.selection.options import RegionOptions
from vmb_d2.structures import box_geometry
from vmb_d2.structures.input_image import InputImage
from vmb_d2.structures.regions import RegionFeatures

from .network import network_seconds
from .spread import Spread
from .stages import STAGES, Laps, clock, pass_through
from .workload import temporary_folder


def confidences(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Confidences of ``most_confident.select_regions``, class by class as the original does it."""
    highest = scores.new_zeros(len(scores))
    thresholds = torch.full_like(highest, threshold)
    for column in range(scores.shape[1]):
        of_class = scores[:, column]
        kept = box_geometry.nms(boxes, of_class, NMS_THRESHOLD)
        counts = (of_class[kept] > highest[kept]) & (of_class[kept] > thresholds[kept])
        highest[kept] = torch.where(counts, of_class[kept], highest[kept])
    return highest


@dataclass(frozen=True)
class OriginalReadOut:
    """In the place of :meth:`RegionFeatureExtractor.read_out`, with the same result.

    Equal confidences are left in the order of the regions, which the original leaves open.

    Attributes:
        feature_name: which feature to give.
        options: ``num_features``, ``confidence_threshold`` and ``background`` count.
    """

    feature_name: str
    options: RegionOptions

    @torch.no_grad()
    def __call__(
        self, regions: Sequence[Instances], images: Sequence[NetworkImage]
    ) -> list[RegionFeatures]:
        return [self._choose(r, image) for r, image in zip(regions, images, strict=True)]

    def _choose(self, regions: Instances, image: NetworkImage) -> RegionFeatures:
        boxes = regions.proposal_boxes.tensor / image.scale
        scores = regions.class_logits.softmax(dim=1).roll(1, dims=1)  # background first
        scores = scores[:, 0 if self.options.background else 1 :]
        confidence = confidences(boxes, scores, self.options.confidence_threshold)
        ranked = confidence.sort(descending=True, stable=True)
        kept = ranked.indices[: self.options.num_features]
        return RegionFeatures(
            features=regions.get(self.feature_name)[kept].cpu().numpy(),
            bbox=boxes[kept].cpu().numpy(),
            num_boxes=int((ranked.values[: self.options.num_features] != 0).sum()),
            objects=scores[kept].argmax(dim=1).cpu().numpy(),
            cls_prob=scores[kept].cpu().numpy(),
            image_width=image.width,
            image_height=image.height,
        )


@dataclass(frozen=True)
class OriginalWrite:
    """Writes ``name.npy`` and ``name_info.npy`` into ``folder`` without care for a death."""

    folder: Path

    def __call__(self, images: Sequence[InputImage], results: Sequence[RegionFeatures]) -> None:
        for image, regions in zip(images, results, strict=True):
            info = {
                "bbox": regions.bbox,
                "num_boxes": regions.num_boxes,
                "objects": regions.objects,
                "cls_prob": regions.cls_prob,
                "image_width": regions.image_width,
                "image_height": regions.image_height,
            }
            np.save(self.folder / f"{image.name}.npy", regions.features)
            np.save(self.folder / f"{image.name}_info.npy", info)


@contextlib.contextmanager
def torchvisions_pooling(model: nn.Module) -> Iterator[None]:
    """Have a model pool regions as Detectron2 does by itself."""
    poolers = [module for module in model.modules() if isinstance(module, BagROIAlign)]
    for pooler in poolers:
        pooler.__class__ = ROIAlign
    try:
        yield
    finally:
        for pooler in poolers:
            pooler.__class__ = BagROIAlign


class OriginalLoop:
    """The measurements of the original's loop.

    Args:
        extractor: of full float32.
        images: to measure with.
        folder: for what is written; it is removed again.
    """

    def __init__(
        self, extractor: RegionFeatureExtractor, images: Sequence[InputImage], folder: Path
    ):
        self.extractor = extractor
        self.images = images
        self._folder = folder
        self._read_out = OriginalReadOut(extractor.feature_names[0], extractor.options)
        self._stages: list[dict[str, float]] = []

    def warm_up(self) -> None:
        """Run the network on images one by one. Raises as :meth:`measure`."""
        with torchvisions_pooling(self.extractor.model):
            network_seconds(self.extractor, self.images, 1)

    def measure(self) -> None:
        """Go once over the images. Raises ImageReadError."""
        laps = Laps(clock(self.extractor.model.device))
        pooling = torchvisions_pooling(self.extractor.model)
        with pooling, temporary_folder(self._folder) as folder:
            write = OriginalWrite(folder)
            pass_through(self.extractor, self.images, 1, laps, write, self._read_out)
        self._stages.append(laps.totals)

    def as_dict(self) -> dict[str, Any]:
        """The figures an image, as plain values."""

        def spread(values: list[float]) -> dict[str, Any]:
            return asdict(Spread.of(values, divisor=len(self.images)))

        seconds = spread([sum(laps.values()) for laps in self._stages])
        stages = {stage: spread([laps[stage] for laps in self._stages]) for stage in STAGES}
        return {
            "seconds": seconds,
            "images_per_second": 1 / seconds["median"],
            "stages": {stage: {"seconds": seconds} for stage, seconds in stages.items()},
        }
