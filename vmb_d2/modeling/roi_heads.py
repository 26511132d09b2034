"""The box heads on Detectron2: fc6 and fc7 over an FPN, and res5 over a C4 backbone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from detectron2.config import configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import ROI_BOX_HEAD_REGISTRY, ROI_HEADS_REGISTRY
from detectron2.modeling.backbone.resnet import BottleneckBlock, ResNet
from detectron2.modeling.poolers import convert_boxes_to_pooler_format
from detectron2.modeling.roi_heads import (
    FastRCNNConvFCHead,
    FastRCNNOutputLayers,
    Res5ROIHeads,
    StandardROIHeads,
)
from detectron2.modeling.roi_heads.fast_rcnn import fast_rcnn_inference
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

from ..structures.box_geometry import CONVENTIONS
from .anchors import ConventionBox2BoxTransform
from .attributes import RULES, AttributeHead, Attributes, most_probable
from .poolers import InclusiveROIPooler
from .res5 import PooledRes5


class VMBOutputLayers(FastRCNNOutputLayers):
    """Class logits and box regression from proposals of a convention.

    The predicted boxes are exclusive, as Detectron2's evaluators and visualiser expect them; NMS is
    the convention's.
    """

    @classmethod
    def from_config(cls, cfg, input_shape):
        args = super().from_config(cfg, input_shape)
        weights = cfg.MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS
        convention = CONVENTIONS[cfg.MODEL.BOX_CONVENTION]
        args["box2box_transform"] = ConventionBox2BoxTransform(weights, convention)
        return args

    def predict_boxes(self, predictions, proposals: list[Instances]) -> list[Tensor]:
        """Regressed boxes (R_i, 4 K) of each image: exclusive, network pixels, not clipped."""
        predicted = super().predict_boxes(predictions, proposals)
        exclusive = self.box2box_transform.convention.exclusive
        return [exclusive(boxes.view(-1, 4)).view(boxes.shape) for boxes in predicted]

    def inference(self, predictions, proposals: list[Instances]):
        """See :meth:`detectron2.modeling.roi_heads.FastRCNNOutputLayers.inference`."""
        everything, rows = fast_rcnn_inference(
            self.predict_boxes(predictions, proposals),
            self.predict_probs(predictions, proposals),
            [p.image_size for p in proposals],
            self.test_score_thresh,
            nms_thresh=1.0,  # drops nothing
            topk_per_image=-1,
        )
        convention, detections, kept = self.box2box_transform.convention, [], []
        for found, own_rows in zip(everything, rows, strict=True):
            boxes = convention.from_exclusive(found.pred_boxes.tensor)
            survives = torch.zeros_like(own_rows, dtype=torch.bool)
            for number in found.pred_classes.unique():
                own = (found.pred_classes == number).nonzero().squeeze(1)
                nms = convention.nms(boxes[own], found.scores[own], self.test_nms_thresh)
                survives[own[nms]] = True
            best = survives.nonzero().squeeze(1)  # by falling score
            if self.test_topk_per_image >= 0:
                best = best[: self.test_topk_per_image]
            detections.append(found[best])
            kept.append(own_rows[best])
        return detections, kept

    def boxes_of_classes(
        self, deltas: Tensor, proposals: Tensor, rows: Tensor, classes: Tensor
    ) -> Tensor:
        """Some of the proposals, regressed as boxes of a class each.

        Args:
            deltas: (R, 4 K), or (R, 4) where regression doesn't depend on the class.
            proposals: (R, 4), network pixels.
            rows, classes: int64, which broadcast to (...): the proposals, and the classes without
                the background.

        Returns:
            (..., 4), network pixels, not clipped.
        """
        rows, classes = torch.broadcast_tensors(rows, classes)
        of_class = deltas.unflatten(1, (-1, 4))
        own = of_class[rows, classes if of_class.shape[1] > 1 else 0]
        sources = proposals[rows]
        decoded = self.box2box_transform.apply_deltas(own.reshape(-1, 4), sources.reshape(-1, 4))
        return decoded.view(sources.shape)


@ROI_BOX_HEAD_REGISTRY.register()
class TwoFCHead(FastRCNNConvFCHead):
    """Two fully connected layers with ReLU, VMB's fc6 and fc7 (``fc1`` and ``fc2`` here)."""

    def region_features(self, pooled: Tensor) -> dict[str, Tensor]:
        """``fc6`` and ``fc7``, both after ReLU, (R, D) each, of pooled maps (R, C, H, W)."""
        fc6 = self.fc_relu1(self.fc1(self.flatten(pooled)))
        return {"fc6": fc6, "fc7": self.fc_relu2(self.fc2(fc6))}


class RegionReadout:
    """Features and class logits of given boxes, which both kinds of VMB heads return.

    ``feature_names`` are the features: the default one is first, the classified one last.
    """

    feature_names: tuple[str, ...]
    box_predictor: VMBOutputLayers
    attribute_head: AttributeHead | None

    def region_features(self, features: dict[str, Tensor], boxes: list[Boxes]) -> dict[str, Tensor]:
        """All features of all boxes.

        Args:
            features: the backbone's maps by name, (N, C, H, W) each.
            boxes: for each of the N images, inclusive boxes in network pixels.

        Returns:
            name -> (R, D), of the R boxes of all images in order.
        """
        raise NotImplementedError

    def class_logits(self, region_features: dict[str, Tensor]) -> Tensor:
        """Logits (R, K + 1) in Detectron2's order: the background is the last column."""
        return self.box_predictor.cls_score(region_features[self.feature_names[-1]])

    def box_deltas(self, region_features: dict[str, Tensor]) -> Tensor:
        """Deltas (R, 4 K) of each class's box, (R, 4) where these don't depend on the class."""
        return self.box_predictor.bbox_pred(region_features[self.feature_names[-1]])


@ROI_HEADS_REGISTRY.register()
class VMBStandardROIHeads(RegionReadout, StandardROIHeads):
    """Head of the FPN models."""

    feature_names = ("fc6", "fc7")
    attribute_head = None

    @classmethod
    def _init_box_head(cls, cfg, input_shape):
        args = super()._init_box_head(cfg, input_shape)
        args["box_pooler"] = InclusiveROIPooler(
            cfg.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION,
            [1.0 / input_shape[name].stride for name in args["box_in_features"]],
            cfg.MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO,
        )
        args["box_predictor"] = VMBOutputLayers(cfg, args["box_head"].output_shape)
        return args

    def region_features(self, features, boxes):
        pooled = self.box_pooler([features[name] for name in self.box_in_features], boxes)
        return self.box_head.region_features(pooled)


@ROI_HEADS_REGISTRY.register()
class VMBRes5ROIHeads(RegionReadout, Res5ROIHeads):
    """Head of the C4 models: the mean over res5's map of each region, and attributes of it.

    ``regions_at_once`` regions go through res5 at a time; the maps of a region take about 4 MB.
    Fewer than 32 at a time are slower on a CPU.
    """

    feature_names = ("pooled",)
    regions_at_once = 128

    @configurable
    def __init__(self, *, attribute_head: AttributeHead | None = None, **kwargs):
        super().__init__(**kwargs)
        self.attribute_head = attribute_head

    @classmethod
    def from_config(cls, cfg, input_shape):
        args = super().from_config(cfg, input_shape)
        channels = args["box_predictor"].cls_score.in_features
        args["box_predictor"] = VMBOutputLayers(cfg, ShapeSpec(channels=channels))
        if cfg.MODEL.ROI_BOX_HEAD.POOLER_TYPE == "ROIAlign":
            args["pooler"] = InclusiveROIPooler(
                cfg.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION,
                [1.0 / input_shape[name].stride for name in args["in_features"]],
                cfg.MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO,
            )
        if cfg.MODEL.RESNETS.RES5_DILATION > 1:
            args["res5"] = cls.dilated_res5(cfg)
        head = cfg.MODEL.ROI_ATTRIBUTE_HEAD
        if head.NUM_ATTRIBUTES:
            args["attribute_head"] = AttributeHead(
                channels,
                cfg.MODEL.ROI_HEADS.NUM_CLASSES,
                head.NUM_ATTRIBUTES,
                head.EMBEDDING_DIM,
                head.HIDDEN_DIM,
                RULES[head.RULE],
            )
        return args

    @classmethod
    def dilated_res5(cls, cfg) -> nn.Sequential:
        """A res5 whose 3x3 convolutions are dilated in place of its stride."""
        resnets = cfg.MODEL.RESNETS
        out_channels = 8 * resnets.RES2_OUT_CHANNELS
        blocks = ResNet.make_stage(
            BottleneckBlock,
            3,
            in_channels=out_channels // 2,
            out_channels=out_channels,
            bottleneck_channels=8 * resnets.NUM_GROUPS * resnets.WIDTH_PER_GROUP,
            num_groups=resnets.NUM_GROUPS,
            norm=resnets.NORM,
            stride_in_1x1=resnets.STRIDE_IN_1X1,
            dilation=resnets.RES5_DILATION,
        )
        return nn.Sequential(*blocks)

    def region_features(self, features, boxes):
        (feature,) = (features[name] for name in self.in_features)
        (pooler,) = self.pooler.level_poolers
        rois = convert_boxes_to_pooler_format(boxes)
        res5 = PooledRes5(self.res5, pooler, feature, len(rois))
        pooled = [
            res5(piece).mean(dim=(2, 3), dtype=torch.float32)
            for piece in rois.split(self.regions_at_once)
        ]
        return {"pooled": torch.cat(pooled)}

    def attributes(
        self,
        maps: dict[str, Tensor],
        features: Tensor,
        classes: Tensor,
        class_logits: Tensor,
        boxes: Sequence[Tensor] | None = None,
    ) -> Attributes:
        """The attributes of the R regions of all images in order. There has to be their head.

        Args:
            maps: the backbone's by name, (N, C, H, W) each.
            features: float32 (R, D), from which the classes were predicted.
            classes: int64 (R,), that the regions were chosen for, without the background.
            class_logits: (R, K + 1), the background last.
            boxes: for each of the N images, (R_i, 4) of the model's convention in network pixels,
                where they are others than those of the features.
        """
        assert self.attribute_head is not None
        rule = self.attribute_head.rule
        if boxes is not None and rule.of_final_box:
            pooled = self.region_features(maps, [Boxes(b) for b in boxes])
            features = pooled[self.feature_names[-1]].float()
        if not rule.of_chosen_class:
            classes = class_logits.argmax(dim=1)
        return most_probable(self.attribute_head(features, classes), rule)

    def forward(self, images, features, proposals, targets=None):
        """See :meth:`detectron2.modeling.roi_heads.Res5ROIHeads.forward`, for inference only.

        Where the model predicts attributes, the detections also have ``attribute_ids`` and
        ``attribute_scores``, (R, 16) each, see :class:`vmb_d2.modeling.attributes.Attributes`.
        """
        outputs = self.region_features(features, [p.proposal_boxes for p in proposals])
        logits = self.class_logits(outputs)
        predictions = logits, self.box_deltas(outputs)
        detections, kept = self.box_predictor.inference(predictions, proposals)
        if self.attribute_head is None:
            return detections, {}
        counts = [len(p) for p in proposals]
        pooled = outputs[self.feature_names[-1]].float()
        convention = self.box_predictor.box2box_transform.convention
        found = self.attributes(
            features,
            torch.cat([own[i] for own, i in zip(pooled.split(counts), kept, strict=True)]),
            torch.cat([d.pred_classes for d in detections]),
            torch.cat([own[i] for own, i in zip(logits.split(counts), kept, strict=True)]),
            [
                convention.clip(convention.from_exclusive(d.pred_boxes.tensor), d.image_size)
                for d in detections
            ],
        )
        counts = [len(d) for d in detections]
        ids, scores = found.ids.split(counts), found.scores.split(counts)
        for own, own_ids, own_scores in zip(detections, ids, scores, strict=True):
            own.attribute_ids, own.attribute_scores = own_ids, own_scores
        return detections, {}
