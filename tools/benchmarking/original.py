"""The originals' loops, emulated on this project's network.

MMF's ``extract_features_vmb.py`` with its defaults: one image at a time, one NMS for each class,
two files written with ``np.save``. scene_graph_benchmark's for VinVL, written in the same files:
such an NMS, and res5 again on the final boxes for their attributes. Regions are pooled by
torchvision's kernel, which comes from the originals': on a CPU, one loop in one thread. Batch norm
is maskrcnn-benchmark's: a product and a sum, each into a new map. Memory is glibc's.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from detectron2.layers import FrozenBatchNorm2d, ROIAlign
from torch import Tensor, nn

from vmb_d2.data.preprocessing import NetworkImage
from vmb_d2.extractor import RegionFeatureExtractor
from vmb_d2.modeling import NetworkOutput
from vmb_d2.modeling.poolers import BagROIAlign
from vmb_d2.structures import box_geometry
from vmb_d2.structures.input_image import InputImage
from vmb_d2.structures.regions import RegionFeatures
from vmb_d2.utils.devices import keep_freed_memory

from .stages import run_stages


def confidences(
    boxes: Tensor,
    scores: Tensor,
    threshold: float,
    convention: box_geometry.BoxConvention = box_geometry.VMB,
    overlap: float = 0.5,
) -> tuple[Tensor, Tensor]:
    """Confidences of ``most_confident.select_by_class``, class by class as the original does it.

    Args:
        boxes: Tensor[N, 4].
        scores: Tensor[N, C], probabilities without the background.
        threshold: scores have to be above it.
        convention, overlap: of NMS.

    Returns:
        Tensor[N], and int64 Tensor[N], the classes of these confidences.
    """
    highest = scores.new_zeros(len(scores))
    classes = torch.zeros_like(highest, dtype=torch.int64)
    thresholds = torch.full_like(highest, threshold)
    for column in range(scores.shape[1]):
        of_class = scores[:, column]
        kept = convention.nms(boxes, of_class, overlap)
        counts = (of_class[kept] > highest[kept]) & (of_class[kept] > thresholds[kept])
        classes[kept[counts]] = column
        highest[kept] = torch.where(counts, of_class[kept], highest[kept])
    return highest, classes


@torch.no_grad()
def vinvl_read_out(
    extractor: RegionFeatureExtractor, output: NetworkOutput, images: Sequence[NetworkImage]
) -> list[RegionFeatures]:
    """The same as ``extractor.read_out`` with VinVL's read-out, without ``cls_prob``."""
    rule, model, results = extractor.read_out_rule, extractor.model, []
    convention = box_geometry.CONVENTIONS[rule.convention]
    for i, (instances, image) in enumerate(zip(output.regions, images, strict=True)):
        boxes = instances.proposal_boxes.tensor
        scores = instances.class_logits.softmax(dim=1)[:, :-1]
        nms = convention, rule.overlaps[0]
        confidence, classes = confidences(boxes, scores, 0.0, *nms)
        ranked = confidence.sort(descending=True, stable=True)
        above = int((ranked.values >= rule.threshold).sum())
        kept = ranked.indices[: min(max(above, rule.least), rule.most)]
        own = {name: values[i : i + 1] for name, values in output.maps.items()}
        features = instances.get(extractor.feature_names[0])[kept]
        attributes = model.roi_heads.attributes(
            own, features, classes[kept], instances.class_logits[kept], [boxes[kept]]
        )
        scales = boxes.new_tensor(image.scales * 2)
        results.append(
            RegionFeatures(
                features=features.cpu().numpy(),
                bbox=(boxes[kept] / scales).cpu().numpy(),
                num_boxes=int((confidence[kept] > 0).sum()),
                objects=classes[kept].cpu().numpy(),
                cls_prob=None,
                image_width=image.width,
                image_height=image.height,
                objects_conf=confidence[kept].cpu().numpy(),
                attrs_id=attributes.ids[:, 0].cpu().numpy(),
                attrs_conf=attributes.scores[:, 0].cpu().numpy(),
            )
        )
    return results


@torch.no_grad()
def mmf_read_out(
    extractor: RegionFeatureExtractor, output: NetworkOutput, images: Sequence[NetworkImage]
) -> list[RegionFeatures]:
    """The same as ``extractor.read_out``, of its first feature.

    Equal confidences stay in the order of the regions, which the original leaves open.
    """
    background, rule, results = extractor.options.background, extractor.read_out_rule, []
    for instances, image in zip(output.regions, images, strict=True):
        boxes = instances.proposal_boxes.tensor / image.scales[0]
        scores = instances.class_logits.softmax(dim=1).roll(1, dims=1)  # background first
        scores = scores[:, 0 if background else 1 :]
        confidence, _ = confidences(boxes, scores, rule.threshold)
        ranked = confidence.sort(descending=True, stable=True)
        kept = ranked.indices[: rule.most]
        results.append(
            RegionFeatures(
                features=instances.get(extractor.feature_names[0])[kept].cpu().numpy(),
                bbox=boxes[kept].cpu().numpy(),
                num_boxes=int((ranked.values[: rule.most] != 0).sum()),
                objects=scores[kept].argmax(dim=1).cpu().numpy(),
                cls_prob=scores[kept].cpu().numpy(),
                image_width=image.width,
                image_height=image.height,
            )
        )
    return results


def write(folder: Path, images: Sequence[InputImage], results: Sequence[RegionFeatures]) -> None:
    """Write ``name.npy`` and ``name_info.npy``, not safe against a crash."""
    for image, regions in zip(images, results, strict=True):
        names = ("bbox", "num_boxes", "objects", "cls_prob", "image_width", "image_height")
        info: object = {name: getattr(regions, name) for name in names}
        np.save(folder / f"{image.name}.npy", regions.features)
        np.save(folder / f"{image.name}_info.npy", np.array(info, dtype=object))


class OriginalBatchNorm(FrozenBatchNorm2d):
    """Detectron2's frozen batch norm, computed as maskrcnn-benchmark does."""

    def forward(self, x: Tensor) -> Tensor:
        """See :class:`detectron2.layers.FrozenBatchNorm2d`."""
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        bias = self.bias - self.running_mean * scale
        return x * scale[:, None, None] + bias[:, None, None]


# this project's class -> the original's
LAYERS: dict[type[nn.Module], type[nn.Module]] = {
    BagROIAlign: ROIAlign,
    FrozenBatchNorm2d: OriginalBatchNorm,
}


@contextlib.contextmanager
def as_the_original(model: nn.Module) -> Iterator[None]:
    """Let a model compute its layers by the classes of ``LAYERS``, on the CPU in glibc's memory."""
    changed = [(module, type(module)) for module in model.modules() if type(module) in LAYERS]
    for module, own in changed:
        module.__class__ = LAYERS[own]
    on_cpu = next(model.parameters()).device.type == "cpu"
    if on_cpu:
        keep_freed_memory(False)
    try:
        yield
    finally:
        for module, own in changed:
            module.__class__ = own
        if on_cpu:
            keep_freed_memory()


# read-out -> how the original chooses regions
READ_OUTS = {"mmf": mmf_read_out, "vinvl": vinvl_read_out}


def original_stages(
    extractor: RegionFeatureExtractor, images: Sequence[InputImage]
) -> dict[str, float]:
    """Run the original's loop once. Returns the seconds of each stage. Raises ImageReadError.

    ``extractor``: in fp32, ``layer_by_layer``.
    """
    read_out = READ_OUTS[extractor.read_out_rule.name]
    with as_the_original(extractor.model), tempfile.TemporaryDirectory() as folder:
        return run_stages(
            extractor,
            images,
            1,
            lambda *batch: write(Path(folder), *batch),
            lambda *batch: read_out(extractor, *batch),
        )
