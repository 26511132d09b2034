"""VMB's box heads on Detectron2: fc6 and fc7 over an FPN, and res5 over a C4 backbone."""

from __future__ import annotations

import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import ROI_BOX_HEAD_REGISTRY, ROI_HEADS_REGISTRY
from detectron2.modeling.poolers import convert_boxes_to_pooler_format
from detectron2.modeling.roi_heads import (
    FastRCNNConvFCHead,
    FastRCNNOutputLayers,
    Res5ROIHeads,
    StandardROIHeads,
)
from detectron2.structures import Boxes, Instances
from torch import Tensor

from ..structures.box_geometry import to_exclusive
from .anchors import InclusiveBox2BoxTransform
from .poolers import InclusiveROIPooler


class VMBOutputLayers(FastRCNNOutputLayers):
    """Class logits and box regression from inclusive proposals.

    The predicted boxes are exclusive, as Detectron2's inference, evaluators and visualiser expect
    them. Detectron2's NMS on them equals VMB's on inclusive boxes, except for overlaps equal to the
    threshold.
    """

    @classmethod
    def from_config(cls, cfg, input_shape):
        args = super().from_config(cfg, input_shape)
        weights = cfg.MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS
        args["box2box_transform"] = InclusiveBox2BoxTransform(weights)
        return args

    def predict_boxes(self, predictions, proposals: list[Instances]) -> list[Tensor]:
        """Regressed boxes (R_i, 4 K) of each image: exclusive, network pixels, not clipped."""
        predicted = super().predict_boxes(predictions, proposals)
        return [to_exclusive(boxes.view(-1, 4)).view(boxes.shape) for boxes in predicted]


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


@ROI_HEADS_REGISTRY.register()
class VMBStandardROIHeads(RegionReadout, StandardROIHeads):
    """Head of the FPN models."""

    feature_names = ("fc6", "fc7")

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
    """Head of the C4 models: the mean over res5's map of each region.

    ``regions_at_once`` regions go through res5 at a time; the maps of a region take about 4 MB.
    Fewer than 32 at a time are slower on a CPU.
    """

    feature_names = ("pooled",)
    regions_at_once = 128

    @classmethod
    def from_config(cls, cfg, input_shape):
        args = super().from_config(cfg, input_shape)
        channels = args["box_predictor"].cls_score.in_features
        args["box_predictor"] = VMBOutputLayers(cfg, ShapeSpec(channels=channels))
        args["pooler"] = InclusiveROIPooler(
            cfg.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION,
            [1.0 / input_shape[name].stride for name in args["in_features"]],
            cfg.MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO,
        )
        return args

    def region_features(self, features, boxes):
        (feature,) = (features[name] for name in self.in_features)
        (pooler,) = self.pooler.level_poolers
        rois = convert_boxes_to_pooler_format(boxes)
        pooled = [
            self.res5(pooler(feature, piece)).mean(dim=(2, 3), dtype=torch.float32)
            for piece in rois.split(self.regions_at_once)
        ]
        return {"pooled": torch.cat(pooled)}
