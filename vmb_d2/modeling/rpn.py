"""The region proposal network: Detectron2's RPN with the post-processing of each lineage."""

from __future__ import annotations

from typing import NamedTuple

import torch
from detectron2.config import configurable
from detectron2.modeling import PROPOSAL_GENERATOR_REGISTRY
from detectron2.modeling.proposal_generator import RPN
from detectron2.structures import Boxes, ImageList, Instances
from torch import Tensor
from torch.nn.functional import pad

from ..structures.box_geometry import CONVENTIONS, BoxConvention
from ..utils.devices import on_device
from .anchors import ConventionBox2BoxTransform
from .network_batch import NetworkBatch


class Limits(NamedTuple):
    """The (height, width) that an image's boxes are clipped to, and the smallest of their sides."""

    size: tuple[int, int]
    min_side: float


class Candidates(NamedTuple):
    """Boxes of each image, the best first.

    Attributes:
        boxes: (N, K, 4), network pixels, clipped.
        logits: (N, K).
        rank: (N, K), what decides the order: falling in each level.
        valid: bool (N, K), those that are not dropped.
    """

    boxes: Tensor
    logits: Tensor
    rank: Tensor
    valid: Tensor

    def at(self, order: Tensor) -> Candidates:
        """Those of the indices (N, M) of each image."""
        return Candidates(*(_rows(values, order) for values in self))

    def valid_first(self, most: int) -> Candidates:
        """At most so many of each image, the valid ones first, otherwise in the same order."""
        order = self.valid.byte().sort(dim=1, descending=True, stable=True).indices
        return self.at(order[:, :most])


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

    All images and levels are worked on together. What is dropped is marked, not taken out, so that
    a GPU makes the host wait a few times in a batch, however many images it has.

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
        rows = [(*limit.size, limit.min_side) for limit in limits]
        numbers = on_device(rows, anchors[0].device, torch.float32)
        levels = [
            self._candidates(*level, *numbers[:, :, None].unbind(dim=1))
            for level in zip(anchors, pred_objectness_logits, pred_anchor_deltas, strict=True)
        ]
        found = self._best_of_all([candidates for candidates, _ in levels])
        # Boxes that are not finite were dropped as too small: only this tells of them.
        known = torch.stack([known for _, known in levels]).all(dim=0)
        proposals = []
        for i, count in enumerate(found.valid.sum(dim=1).tolist()):
            logits = found.logits[i, :count]
            fields = {
                "proposal_boxes": Boxes(found.boxes[i, :count]),
                "objectness": logits.float().sigmoid().where(known[i], torch.nan),
                "objectness_logits": logits,
            }
            proposals.append(Instances(limits[i].size, **fields))
        return proposals

    def _candidates(
        self,
        anchors: Boxes,
        logits: Tensor,
        deltas: Tensor,
        heights: Tensor,
        widths: Tensor,
        min_sides: Tensor,
    ) -> tuple[Candidates, Tensor]:
        """The top-k of one level, with those too small dropped.

        Args:
            anchors: R boxes.
            logits: (N, R).
            deltas: (N, R, 4).
            heights, widths, min_sides: (N, 1), the limits of each image.

        Returns:
            The candidates, and bool (N,): whether their boxes are finite and no logit is NaN.
        """
        rank = logits.float() if self.ranks_by_logits else logits.float().sigmoid()
        sources = anchors.tensor.expand(len(logits), -1, -1)
        limits = heights, widths, min_sides
        if self.small_boxes == "caffe":
            _, large, finite = self._decoded(deltas, sources, *limits)
            rank = rank.where(large | ~finite, -torch.inf)  # what isn't finite is to be noticed
        order = rank.sort(dim=1, descending=True, stable=True).indices
        order = order[:, : self.pre_nms_topk[self.training]]
        sources, logits, deltas = (_rows(values, order) for values in (sources, logits, deltas))
        boxes, large, finite = self._decoded(deltas, sources, *limits)
        known = (finite & ~logits.isnan()).all(dim=1)
        return Candidates(boxes, logits, _rows(rank, order), large), known

    def _decoded(
        self, deltas: Tensor, sources: Tensor, heights: Tensor, widths: Tensor, min_sides: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes (N, R, 4), clipped, and bool (N, R) twice: whether large enough, whether finite."""
        flat = deltas.reshape(-1, 4), sources.reshape(-1, 4)
        boxes = self.box2box_transform.apply_deltas(*flat).view(deltas.shape)
        clipped = self.convention.clip(boxes, (heights[..., None], widths[..., None]))
        exceeded = self.small_boxes != "vmb"
        large = self.convention.has_sides_of(clipped, min_sides, exceeded)
        return clipped, large, boxes.isfinite().all(dim=2)

    def _best_of_all(self, levels: list[Candidates]) -> Candidates:
        """The proposals of each image, of the candidates of all levels."""
        counts = [level.valid.shape[1] for level in levels]
        boxes, valid = (
            torch.stack([_extended(v, max(counts)) for v in values], dim=1)
            for values in ([level.boxes for level in levels], [level.valid for level in levels])
        )
        kept = self.convention.kept(boxes.flatten(0, 1), valid.flatten(0, 1), self.nms_thresh)
        kept_of_levels = kept.view(valid.shape).unbind(dim=1)
        best = [
            level._replace(valid=own[:, :count]).valid_first(self.post_nms_topk_per_level)
            for level, own, count in zip(levels, kept_of_levels, counts, strict=True)
        ]
        if len(best) == 1:
            return best[0]
        joined = Candidates(*(torch.cat(values, dim=1) for values in zip(*best, strict=True)))
        ranked = joined.at(joined.rank.sort(dim=1, descending=True, stable=True).indices)
        return ranked.valid_first(self.post_nms_topk[self.training])


def _rows(values: Tensor, order: Tensor) -> Tensor:
    """Rows (N, M, ...) of values (N, K, ...), by their indices (N, M)."""
    index = order if values.ndim == 2 else order[:, :, None].expand(-1, -1, values.shape[2])
    return values.gather(1, index)


def _extended(values: Tensor, length: int) -> Tensor:
    """Values (N, K, ...) as (N, length, ...), with zeros at the end."""
    missing = (0, length - values.shape[1])
    return pad(values, missing if values.ndim == 2 else (0, 0, *missing))
