"""VMB's region proposal network: Detectron2's RPN with VMB's post-processing."""

from __future__ import annotations

import torch
from detectron2.config import configurable
from detectron2.modeling import PROPOSAL_GENERATOR_REGISTRY
from detectron2.modeling.proposal_generator import RPN
from detectron2.structures import Boxes, ImageList, Instances
from torch import Tensor

from ..structures import box_geometry
from .anchors import InclusiveBox2BoxTransform


@PROPOSAL_GENERATOR_REGISTRY.register()
class VMBRPN(RPN):
    """Proposes regions as VMB does at inference.

    In each level: sigmoid, top-k, decode, clip, drop small boxes, NMS, keep the first
    ``post_nms_topk_per_level``. With several levels, the best ``post_nms_topk`` over all of them.
    Boxes are clipped to the *padded* size of the batch, not to the size of their image.

    The proposals are Instances whose ``image_size`` is the size of their image, with the fields
    ``proposal_boxes`` (inclusive, network pixels), ``objectness`` (the sigmoid) and
    ``objectness_logits``, in falling order of objectness. Equal values keep the order of levels
    and, within a level, of rows, columns and anchors. All objectness of an image is NaN where the
    box of a candidate is not finite or its logit is NaN, since the best ones are not known then.
    """

    @configurable
    def __init__(self, *, post_nms_topk_per_level: int, **kwargs):
        super().__init__(**kwargs)
        self.post_nms_topk_per_level = post_nms_topk_per_level

    @classmethod
    def from_config(cls, cfg, input_shape):
        args = super().from_config(cfg, input_shape)
        args["box2box_transform"] = InclusiveBox2BoxTransform(cfg.MODEL.RPN.BBOX_REG_WEIGHTS)
        args["post_nms_topk_per_level"] = cfg.MODEL.RPN.POST_NMS_TOPK_PER_LEVEL_TEST
        return args

    def forward(self, images: ImageList, features, gt_instances=None):
        """See :meth:`detectron2.modeling.proposal_generator.RPN.forward`."""
        padded_size = tuple(images.tensor.shape[-2:])
        padded = ImageList(images.tensor, [padded_size] * len(images))
        proposals, losses = super().forward(padded, features, gt_instances)
        own_sizes = zip(proposals, images.image_sizes, strict=True)
        return [Instances(size, **p.get_fields()) for p, size in own_sizes], losses

    @torch.no_grad()
    def predict_proposals(
        self,
        anchors: list[Boxes],
        pred_objectness_logits: list[Tensor],
        pred_anchor_deltas: list[Tensor],
        image_sizes: list[tuple[int, int]],
    ) -> list[Instances]:
        """Proposals of each image.

        Args:
            anchors: for each level, R_l inclusive boxes.
            pred_objectness_logits: for each level, (N, R_l).
            pred_anchor_deltas: for each level, (N, R_l, 4).
            image_sizes: for each image, the (height, width) to clip to.
        """
        levels = [
            self._candidates(*level)
            for level in zip(anchors, pred_objectness_logits, pred_anchor_deltas, strict=True)
        ]
        return [
            self._proposals_of_image([(boxes[i], logits[i]) for boxes, logits in levels], size)
            for i, size in enumerate(image_sizes)
        ]

    def _candidates(self, anchors: Boxes, logits: Tensor, deltas: Tensor) -> tuple[Tensor, Tensor]:
        """The top-k of one level before NMS: boxes (N, k, 4) and logits (N, k), best first."""
        objectness = logits.float().sigmoid()  # its ties, not the logits', decide the order
        order = objectness.sort(dim=1, descending=True, stable=True).indices
        order = order[:, : self.pre_nms_topk[self.training]]
        deltas = deltas.gather(1, order[:, :, None].expand(-1, -1, 4))
        boxes = self.box2box_transform.apply_deltas(
            deltas.reshape(-1, 4), anchors.tensor[order].reshape(-1, 4)
        )
        return boxes.view(deltas.shape), logits.gather(1, order)

    def _proposals_of_image(self, levels: list[tuple[Tensor, Tensor]], size) -> Instances:
        kept = [self._suppress(boxes, logits, size) for boxes, logits in levels]
        boxes = torch.cat([boxes for boxes, _ in kept])
        logits = torch.cat([logits for _, logits in kept])
        objectness = logits.float().sigmoid()
        if len(levels) > 1:
            order = objectness.argsort(descending=True, stable=True)
            order = order[: self.post_nms_topk[self.training]]
            boxes, logits, objectness = boxes[order], logits[order], objectness[order]
        # Boxes that are not finite were dropped as too small: only this tells of them.
        known = [boxes.isfinite().all() & ~logits.isnan().any() for boxes, logits in levels]
        objectness = objectness.where(torch.stack(known).all(), torch.nan)
        return Instances(
            size,
            proposal_boxes=Boxes(boxes),
            objectness=objectness,
            objectness_logits=logits,
        )

    def _suppress(self, boxes: Tensor, logits: Tensor, size) -> tuple[Tensor, Tensor]:
        """Clip, drop small boxes and apply NMS within one level of one image."""
        boxes = box_geometry.clip(boxes, size)
        large = box_geometry.has_sides_of(boxes, self.min_box_size)
        boxes, logits = boxes[large], logits[large]
        keep = box_geometry.nms(boxes, logits.float().sigmoid(), self.nms_thresh)
        keep = keep[: self.post_nms_topk_per_level]
        return boxes[keep], logits[keep]
