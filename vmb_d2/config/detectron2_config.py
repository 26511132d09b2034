"""A :class:`VMBModel` as a Detectron2 config."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .vmb_model import VMBModel

if TYPE_CHECKING:  # detectron2 is imported only where a config is made
    from detectron2.config import CfgNode


def to_detectron2(model: VMBModel) -> CfgNode:
    """The Detectron2 config of ``model``, for ``detectron2.modeling.build_model``."""
    from detectron2.config import get_cfg

    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE = "VMBRCNN"
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.PIXEL_MEAN = list(model.input.mean)
    cfg.MODEL.PIXEL_STD = [1.0, 1.0, 1.0]
    cfg.MODEL.BOX_CONVENTION = model.box_convention
    cfg.MODEL.SIZE_DIVISIBILITY = model.input.size_divisibility
    cfg.INPUT.FORMAT = model.input.channel_order.upper()
    cfg.INPUT.MIN_SIZE_TEST = model.input.short_side
    cfg.INPUT.MAX_SIZE_TEST = model.input.long_side
    _set_backbone(cfg, model)
    _set_rpn(cfg, model)
    _set_roi_heads(cfg, model)
    return cfg


def _set_backbone(cfg: CfgNode, model: VMBModel) -> None:
    resnets = cfg.MODEL.RESNETS
    resnets.DEPTH = model.depth
    resnets.NUM_GROUPS = model.num_groups
    resnets.WIDTH_PER_GROUP = model.width_per_group
    resnets.STRIDE_IN_1X1 = model.stride_in_1x1
    resnets.STEM_OUT_CHANNELS = model.stem_out_channels
    resnets.RES2_OUT_CHANNELS = model.res2_out_channels
    resnets.NORM = "FrozenBN"
    if model.fpn:
        cfg.MODEL.BACKBONE.NAME = "build_resnet_fpn_backbone"
        resnets.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
        cfg.MODEL.FPN.IN_FEATURES = ["res2", "res3", "res4", "res5"]
        cfg.MODEL.FPN.OUT_CHANNELS = model.backbone_out_channels
    else:
        kind = "resnet" if model.stem_pool_padded else "ceil_pool_resnet"
        cfg.MODEL.BACKBONE.NAME = f"build_{kind}_backbone"
        resnets.RES5_DILATION = model.res5_dilation
        resnets.OUT_FEATURES = ["res4"]


def _set_rpn(cfg: CfgNode, model: VMBModel) -> None:
    cfg.MODEL.PROPOSAL_GENERATOR.NAME = "VMBRPN"
    cfg.MODEL.PROPOSAL_GENERATOR.MIN_SIZE = model.rpn_min_size
    anchors = cfg.MODEL.ANCHOR_GENERATOR
    anchors.NAME = "StoredAnchorGenerator" if model.stored_anchors else "VMBAnchorGenerator"
    anchors.OFFSET = 0.0
    anchors.ASPECT_RATIOS = [list(model.aspect_ratios)]
    sizes = model.anchor_sizes
    anchors.SIZES = [[size] for size in sizes] if model.fpn else [list(sizes)]
    rpn = cfg.MODEL.RPN
    rpn.IN_FEATURES = ["p2", "p3", "p4", "p5", "p6"] if model.fpn else ["res4"]
    rpn.CONV_DIMS = [model.rpn_channels]
    rpn.CLIPS_TO_PADDED = model.clips_to_padded
    rpn.RANKS_BY_LOGITS = model.ranks_by_logits
    rpn.SMALL_BOXES = model.small_boxes
    rpn.NMS_THRESH = model.rpn_nms_threshold
    rpn.PRE_NMS_TOPK_TEST = model.rpn_pre_nms_top_n
    rpn.POST_NMS_TOPK_PER_LEVEL_TEST = model.rpn_post_nms_top_n  # VMBRPN's own key
    rpn.POST_NMS_TOPK_TEST = model.rpn_fpn_post_nms_top_n if model.fpn else model.rpn_post_nms_top_n


def _set_roi_heads(cfg: CfgNode, model: VMBModel) -> None:
    heads = cfg.MODEL.ROI_HEADS
    heads.NAME = "VMBStandardROIHeads" if model.fpn else "VMBRes5ROIHeads"
    heads.IN_FEATURES = ["p2", "p3", "p4", "p5"] if model.fpn else ["res4"]
    heads.NUM_CLASSES = model.num_classes - 1
    heads.SCORE_THRESH_TEST = model.score_threshold
    heads.NMS_THRESH_TEST = model.nms_threshold
    cfg.TEST.DETECTIONS_PER_IMAGE = model.detections_per_image
    box = cfg.MODEL.ROI_BOX_HEAD
    box.NAME = "TwoFCHead"
    box.NUM_FC = 2
    box.FC_DIM = model.mlp_head_dim
    box.POOLER_TYPE = model.pooler_type
    box.POOLER_RESOLUTION = model.pooler_resolution
    box.POOLER_SAMPLING_RATIO = model.pooler_sampling_ratio
    box.BBOX_REG_WEIGHTS = model.bbox_reg_weights
    box.CLS_AGNOSTIC_BBOX_REG = model.class_agnostic_bbox_reg
    attributes = cfg.MODEL.ROI_ATTRIBUTE_HEAD = type(cfg)()
    attributes.RULE = model.attributes or ""
    attributes.NUM_ATTRIBUTES = model.num_attributes
    attributes.EMBEDDING_DIM = model.attribute_embedding_dim or model.feature_dimension // 8
    attributes.HIDDEN_DIM = model.attribute_hidden_dim or model.feature_dimension // 4
