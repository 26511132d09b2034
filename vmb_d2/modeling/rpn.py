"""The region proposal network: Detectron2's RPN with the post-processing of each lineage."""

from __future__ import annotations

from typing import NamedTuple

import torch
from detectron2.config import configurable
from detectron2.modeling import PROPOSAL_GENERATOR_REGISTRY
from detectron2.modeling.proposal_generator import RPN
from detectron2.structures import Boxes, ImageList, Instances
from torch import Tensor

from ..structures.box_geometry import CONVENTIONS, BoxConvention
from .anchors import ConventionBox2BoxTransform
from .network_batch import NetworkBatch


class Limits(NamedTuple):
    """The (height, width) that an image's boxes are clipped to, and the smallest of their sides."""

    size: tuple[int, int]
    min_side: float


@PROPOSAL_GENERATOR_REGISTRY.register()
class VMBRPN(RPN):
    """Proposes regions as VMB, VinVL, frcnn_vg or bua do at inference.

    In each level: top-k, decode, clip, drop small boxes, NMS, keep the first
    ``post_nms_topk_per_level``. With several levels, the best ``post_nms_topk`` over all of them.

    The proposals are Instances whose ``image_size`` is the size of their image, with the fields
    ``proposal_boxes`` (network pixels), ``objectness`` (the sigmoid) and ``objectness_logits``, in
    falling order of objectness. Equal values keep the order of levels and, within a level, of rows,
    columns and anchors. All objectness of an image is NaN where the box of a candidate is not
    finite or its logit is NaN, since the best ones are not known then.

    Args:
        post_nms_topk_per_level: proposals of each level.
        convention: of the boxes.
        clips_to_padded: whether boxes are clipped to the *padded* size of the batch, not to the
            size of their image.
        ranks_by_logits: whether logits decide the order; else their sigmoids, which are equal where
            these saturate.
        small_boxes: which boxes are dropped for their sides. ``"vmb"`` keeps sides of at least
            ``min_box_size``, after the top-k; ``"detectron2"`` sides above it, after the top-k;
            ``"caffe"`` sides above it times the image's scale, before the top-k.
    """

    @configurable
    def __init__(
        self,
        *,
        post_nms_topk_per_level: int,
        convention: BoxConvention,
        clips_to_padded: bool,
        ranks_by_logits: bool,
        small_boxes: str,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.post_nms_topk_per_level = post_nms_topk_per_level
        self.convention = convention
        self.clips_to_padded = clips_to_padded
        self.ranks_by_logits = ranks_by_logits
        self.small_boxes = small_boxes

    @classmethod
    def from_config(cls, cfg, input_shape):
        args = super().from_config(cfg, input_shape)
        convention = CONVENTIONS[cfg.MODEL.BOX_CONVENTION]
        weights = cfg.MODEL.RPN.BBOX_REG_WEIGHTS
        args["box2box_transform"] = ConventionBox2BoxTransform(weights, convention)
        args["convention"] = convention
        args["post_nms_topk_per_level"] = cfg.MODEL.RPN.POST_NMS_TOPK_PER_LEVEL_TEST
        args["clips_to_padded"] = cfg.MODEL.RPN.CLIPS_TO_PADDED
        args["ranks_by_logits"] = cfg.MODEL.RPN.RANKS_BY_LOGITS
        args["small_boxes"] = cfg.MODEL.RPN.SMALL_BOXES
        return args

    def forward(self, images: ImageList, features, gt_instances=None):
        """See :meth:`detectron2.modeling.proposal_generator.RPN.forward`."""
        padded_size = tuple(images.tensor.shape[-2:])
        scales = images.scales if isinstance(images, NetworkBatch) else [1.0] * len(images)
        limits = [
            Limits(padded_size if self.clips_to_padded else size, self._min_side(scale))
            for size, scale in zip(images.image_sizes, scales, strict=True)
        ]
        proposals, losses = super().forward(ImageList(images.tensor, limits), features)
        own_sizes = zip(proposals, images.image_sizes, strict=True)
        return [Instances(size, **p.get_fields()) for p, size in own_sizes], losses

    def _min_side(self, scale: float) -> float:
        """In network pixels, of an image with so many network pixels per original pixel."""
        return self.min_box_size * (scale if self.small_boxes == "caffe" else 1)

    @torch.no_grad()
    def predict_proposals(
        self,
        anchors: list[Boxes],
        pred_objectness_logits: list[Tensor],
        pred_anchor_deltas: list[Tensor],
        limits: list[Limits],
    ) -> list[Instances]:
        """Proposals of each image.

        Args:
            anchors: for each level, R_l boxes.
            pred_objectness_logits: for each level, (N, R_l).
            pred_anchor_deltas: for each level, (N, R_l, 4).
            limits: of the boxes of each image.
        """
        levels = list(zip(anchors, pred_objectness_logits, pred_anchor_deltas, strict=True))
        if self.small_boxes == "caffe":
            images = [
                [
                    self._large_candidates(a, logits[i], deltas[i], limit)
                    for a, logits, deltas in levels
                ]
                for i, limit in enumerate(limits)
            ]
        else:
            candidates = [self._candidates(*level) for level in levels]
            images = [
                [(boxes[i], logits[i]) for boxes, logits in candidates] for i in range(len(limits))
            ]
        return [self._proposals_of_image(*each) for each in zip(images, limits, strict=True)]

    def _rank(self, logits: Tensor) -> Tensor:
        """What decides the order of proposals."""
        return logits.float() if self.ranks_by_logits else logits.float().sigmoid()

    def _candidates(self, anchors: Boxes, logits: Tensor, deltas: Tensor) -> tuple[Tensor, Tensor]:
        """The top-k of one level before NMS: boxes (N, k, 4) and logits (N, k), best first."""
        order = self._rank(logits).sort(dim=1, descending=True, stable=True).indices
        order = order[:, : self.pre_nms_topk[self.training]]
        deltas = deltas.gather(1, order[:, :, None].expand(-1, -1, 4))
        boxes = self.box2box_transform.apply_deltas(
            deltas.reshape(-1, 4), anchors.tensor[order].reshape(-1, 4)
        )
        return boxes.view(deltas.shape), logits.gather(1, order)

    def _large_candidates(
        self, anchors: Boxes, logits: Tensor, deltas: Tensor, limit: Limits
    ) -> tuple[Tensor, Tensor]:
        """The top-k of one image's boxes of one level that are large enough, best first."""
        boxes = self.box2box_transform.apply_deltas(deltas, anchors.tensor)
        boxes = self.convention.clip(boxes, limit.size)
        large = self.convention.has_sides_of(boxes, limit.min_side, exceeded=True)
        large |= ~boxes.isfinite().all(dim=1)  # to be noticed
        boxes, logits = boxes[large], logits[large]
        order = self._rank(logits).sort(descending=True, stable=True).indices
        order = order[: self.pre_nms_topk[self.training]]
        return boxes[order], logits[order]

    def _proposals_of_image(self, levels: list[tuple[Tensor, Tensor]], limit: Limits) -> Instances:
        kept = [self._suppress(boxes, logits, limit) for boxes, logits in levels]
        boxes = torch.cat([boxes for boxes, _ in kept])
        logits = torch.cat([logits for _, logits in kept])
        objectness = logits.float().sigmoid()
        if len(levels) > 1:
            order = self._rank(logits).argsort(descending=True, stable=True)
            order = order[: self.post_nms_topk[self.training]]
            boxes, logits, objectness = boxes[order], logits[order], objectness[order]
        # Boxes that are not finite were dropped as too small: only this tells of them.
        known = [boxes.isfinite().all() & ~logits.isnan().any() for boxes, logits in levels]
        objectness = objectness.where(torch.stack(known).all(), torch.nan)
        return Instances(
            limit.size,
            proposal_boxes=Boxes(boxes),
            objectness=objectness,
            objectness_logits=logits,
        )

    def _suppress(self, boxes: Tensor, logits: Tensor, limit: Limits) -> tuple[Tensor, Tensor]:
        """Clip, drop small boxes and apply NMS within one level of one image."""
        boxes = self.convention.clip(boxes, limit.size)
        exceeded = self.small_boxes != "vmb"
        large = self.convention.has_sides_of(boxes, limit.min_side, exceeded)
        boxes, logits = boxes[large], logits[large]
        keep = self.convention.nms(boxes, self._rank(logits), self.nms_thresh)
        keep = keep[: self.post_nms_topk_per_level]
        return boxes[keep], logits[keep]
