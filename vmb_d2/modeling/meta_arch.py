"""The detector: Detectron2's GeneralizedRCNN with each lineage's padding, and its regions."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from detectron2.config import configurable
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.modeling.meta_arch import GeneralizedRCNN
from detectron2.structures import Boxes, ImageList, Instances
from torch import Tensor

from ..structures.box_geometry import CONVENTIONS, BoxConvention
from ..utils.devices import on_device
from .inference_form import inference_form
from .network_batch import NetworkBatch


class NetworkOutput(NamedTuple):
    """What the network computes of a batch.

    Attributes:
        regions: of each image, see :meth:`VMBRCNN.regions`.
        maps: the backbone's feature maps by name, (N, C, H, W) each.
    """

    regions: list[Instances]
    maps: dict[str, Tensor]


@META_ARCH_REGISTRY.register()
class VMBRCNN(GeneralizedRCNN):
    """A model of one of the lineages.

    Called as any Detectron2 detector, ``model([{"image": ...}])``, it returns ``pred_boxes``
    (exclusive, regressed for each class), ``scores`` and ``pred_classes``, and of a model that
    predicts attributes also ``attribute_ids`` and ``attribute_scores``. :meth:`regions` returns
    what vision-and-language models are trained on: the proposals and their features. For
    inference only.

    Args:
        size_divisibility: images are padded to multiples of it.
        box_convention: of the proposals.
    """

    @configurable
    def __init__(
        self,
        *,
        size_divisibility: int,
        box_convention: BoxConvention,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.padded_to = size_divisibility
        self.box_convention = box_convention

    @classmethod
    def from_config(cls, cfg):
        args = super().from_config(cfg)
        args["size_divisibility"] = cfg.MODEL.SIZE_DIVISIBILITY
        args["box_convention"] = CONVENTIONS[cfg.MODEL.BOX_CONVENTION]
        return args

    def forward(self, batched_inputs: list[dict]):
        """See :meth:`detectron2.modeling.GeneralizedRCNN.forward`.

        Raises:
            NotImplementedError: the model is in training mode (it is when just built).
        """
        if self.training:
            raise NotImplementedError(
                "VMB-D2's models are for inference: call model.eval() first; "
                "training them is not supported"
            )
        return super().forward(batched_inputs)

    def preprocess_image(self, batched_inputs: list[dict]) -> ImageList:
        """Normalise images of (3, H, W), 0..255, and pad them as the lineage does."""
        images = [x["image"].to(self.device) for x in batched_inputs]
        scales = [
            x.shape[-1] / own.get("width", x.shape[-1])
            for x, own in zip(images, batched_inputs, strict=True)
        ]
        images = [(x - self.pixel_mean) / self.pixel_std for x in images]
        padded = ImageList.from_tensors(images, self.padded_to)
        return NetworkBatch(padded.tensor, padded.image_sizes, scales)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The features that :meth:`regions` can return, the default one first."""
        return self.roi_heads.feature_names

    @property
    def feature_dimension(self) -> int:
        """D of each feature, (R, D)."""
        return self.roi_heads.box_predictor.cls_score.in_features

    @property
    def num_classes(self) -> int:
        """Classes without the background."""
        return self.roi_heads.num_classes

    @property
    def is_exact_for_inference(self) -> bool:
        """Whether :meth:`for_inference` in float32, on a CPU, is as near to the original as the
        model itself.

        It is with ResNeXt and res5 heads; the others' features would move away from it.
        """
        res5 = getattr(self.roi_heads, "res5", None)
        return res5 is not None and res5[0].conv2.groups > 1

    def for_inference(self, dtype: torch.dtype = torch.float32) -> VMBRCNN:
        """A faster copy; see :func:`vmb_d2.modeling.inference_form.inference_form`."""
        return inference_form(self, dtype)

    @torch.no_grad()
    def regions(
        self,
        images: ImageList,
        feature_names: Sequence[str],
        boxes: Sequence[Tensor] | None = None,
        box_deltas: bool = False,
    ) -> NetworkOutput:
        """Regions of each image: its proposals, or ``boxes``, with features and class logits.

        Args:
            images: normalised, zero-padded as the lineage does, on the model's device.
            feature_names: which of :attr:`feature_names` to return.
            boxes: for each image, boxes (R_i, 4) of the model's convention in network pixels, used
                instead of proposals.
            box_deltas: whether to return the regression of boxes, too.

        Returns:
            The feature maps, and for each image Instances of ``image_size`` (h, w) without padding,
            in network pixels, with ``proposal_boxes`` (network pixels), ``class_logits`` (R_i,
            K + 1; the background is the last column), each feature (R_i, D) by its name,
            ``objectness`` (R_i,) where the boxes are proposals, and ``box_deltas`` (R_i, 4 K) if
            asked for. All float32.
        """
        features = self.backbone(images.tensor)
        if boxes is None:
            regions, _ = self.proposal_generator(images, features)
        else:
            sized = zip(images.image_sizes, boxes, strict=True)
            regions = [
                Instances(size, proposal_boxes=Boxes(b).to(self.device)) for size, b in sized
            ]
        outputs = self.roi_heads.region_features(features, [r.proposal_boxes for r in regions])
        fields = {name: outputs[name].float() for name in feature_names}
        fields["class_logits"] = self.roi_heads.class_logits(outputs)
        if box_deltas:
            fields["box_deltas"] = self.roi_heads.box_deltas(outputs)
        counts = [len(r) for r in regions]
        for name, values in fields.items():
            for region, value in zip(regions, values.split(counts), strict=True):
                region.set(name, value)
        return NetworkOutput(regions, features)

    def regression(
        self, regions: Sequence[Instances]
    ) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        """What gives the boxes of regions regressed for a class each.

        Args:
            regions: of all images of a batch, with ``box_deltas``.

        Returns:
            A function of int64 tensors that broadcast to (...): the image, which of its regions,
            and the class, without the background. It returns boxes (..., 4), network pixels,
            clipped.
        """
        deltas = torch.cat([r.box_deltas for r in regions])
        proposals = torch.cat([r.proposal_boxes.tensor for r in regions])
        before = [0, *itertools.accumulate(len(r) for r in regions)]
        numbers = [(*r.image_size, first) for r, first in zip(regions, before, strict=False)]
        of_images = on_device(numbers, deltas.device)

        def regressed(images: Tensor, indices: Tensor, classes: Tensor) -> Tensor:
            height, width, first = of_images[images].unbind(dim=-1)
            rows = (first + indices).clamp(max=before[-1] - 1)
            boxes = self.roi_heads.box_predictor.boxes_of_classes(deltas, proposals, rows, classes)
            return self.box_convention.clip(boxes, (height[..., None], width[..., None]))

        return regressed

    @property
    def predicts_attributes(self) -> bool:
        """Whether the model has a head for attributes."""
        return self.roi_heads.attribute_head is not None
