"""The detector: Detectron2's GeneralizedRCNN with VMB's padding, which also returns regions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.modeling.meta_arch import GeneralizedRCNN
from detectron2.structures import Boxes, ImageList, Instances
from torch import Tensor

from ..config.vmb_model import SIZE_DIVISIBILITY
from .inference_form import inference_form


@META_ARCH_REGISTRY.register()
class VMBRCNN(GeneralizedRCNN):
    """A VMB model.

    Called as any Detectron2 detector, ``model([{"image": ...}])``, it returns ``pred_boxes``
    (exclusive, regressed for each class), ``scores`` and ``pred_classes``. :meth:`regions` returns
    what vision-and-language models are trained on: the proposals and their features. For
    inference only.
    """

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
        """Normalise images of (3, H, W), BGR, 0..255, and pad them to a multiple of 32."""
        images = [x["image"].to(self.device) for x in batched_inputs]
        images = [(x - self.pixel_mean) / self.pixel_std for x in images]
        return ImageList.from_tensors(images, SIZE_DIVISIBILITY)

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

    def for_inference(self, dtype: torch.dtype = torch.float32) -> VMBRCNN:
        """A faster copy; see :func:`vmb_d2.modeling.inference_form.inference_form`."""
        return inference_form(self, dtype)

    @torch.no_grad()
    def regions(
        self,
        images: ImageList,
        feature_names: Sequence[str],
        boxes: Sequence[Tensor] | None = None,
    ) -> list[Instances]:
        """Regions of each image: its proposals, or ``boxes``, with features and class logits.

        Args:
            images: normalised, zero-padded to a multiple of 32, on the model's device. Proposals
                are clipped to the padded size, as in the original.
            feature_names: which of :attr:`feature_names` to return.
            boxes: for each image, inclusive boxes (R_i, 4) in network pixels, used instead of
                proposals.

        Returns:
            For each image, Instances of ``image_size`` (h, w) without padding, in network pixels,
            with ``proposal_boxes`` (inclusive, network pixels), ``class_logits`` (R_i, K + 1; the
            background is the last column), each feature (R_i, D) by its name, and ``objectness``
            (R_i,) where the boxes are proposals. All float32.
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
        counts = [len(r) for r in regions]
        for name, values in fields.items():
            for region, value in zip(regions, values.split(counts), strict=True):
                region.set(name, value)
        return regions
