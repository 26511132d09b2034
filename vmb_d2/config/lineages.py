"""The keys of the yaml files of VinVL, frcnn_vg and bua, beside those of VMB's.

Sources: sgg_configs/vgattr/vinvl_x152c4.yaml of microsoft/scene_graph_benchmark;
``config.yaml`` of unc-nlp/frcnn-vg-finetuned; configs/caffe/test-caffe-r101.yaml of
MILVLG/bottom-up-attention.pytorch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from . import vmb_keys
from .input_step import InputStep
from .read_out import READ_OUTS
from .vmb_model import VMBModel


@dataclass(frozen=True)
class Lineage:
    """What the keys of a lineage's yaml files mean.

    Attributes:
        base: the model of a yaml that says nothing.
        fields: key -> field of :class:`VMBModel`; ``input.x`` and ``read_out.x`` are fields of its
            input and read-out.
        only_at: key -> the values that are supported.
        without_effect: patterns of keys that have no effect on region features.
        counts_background: whether the number of classes includes the background, and that of
            attributes "no attribute".
        others_ignored: whether a key that is none of these is ignored; else it is an error.
    """

    base: VMBModel
    fields: Mapping[str, str]
    only_at: Mapping[str, tuple[Any, ...]]
    without_effect: tuple[str, ...] = ()
    counts_background: bool = True
    others_ignored: bool = False

    def model(self, fields: Mapping[str, Any]) -> VMBModel:
        """The model whose fields, ``input.x`` and ``read_out.x`` among them, have other values."""
        own = {name: value for name, value in fields.items() if "." not in name}
        for part in ("input", "read_out"):
            changes = {
                name.partition(".")[2]: value
                for name, value in fields.items()
                if name.startswith(f"{part}.")
            }
            own[part] = replace(getattr(self.base, part), **changes)
        if not self.counts_background and "num_classes" in own:
            own["num_classes"] += 1
        if self.counts_background and "num_attributes" in own:
            own["num_attributes"] -= 1
        return replace(self.base, **own)


VMB = Lineage(VMBModel(), vmb_keys.FIELDS, vmb_keys.SUPPORTED_ONLY_AT, vmb_keys.WITHOUT_EFFECT)

VINVL = Lineage(
    base=VMBModel(
        rpn_post_nms_top_n=300,
        box_convention="vinvl",
        clips_to_padded=False,
        attributes="vinvl",
        num_attributes=524,
        attribute_embedding_dim=256,
        attribute_hidden_dim=512,
        input=InputStep(
            600,
            1000,
            rounding="truncate",
            resize="pil",
            mean=(103.530, 116.280, 123.675),
            size_divisibility=0,
        ),
        read_out=READ_OUTS["vinvl"],
    ),
    fields={
        **vmb_keys.FIELDS,
        "MODEL.ROI_ATTRIBUTE_HEAD.NUM_ATTRIBUTES": "num_attributes",
        "MODEL.ROI_ATTRIBUTE_HEAD.CLS_EMD_DIM": "attribute_embedding_dim",
        "MODEL.ROI_ATTRIBUTE_HEAD.ATTR_EMD_DIM": "attribute_hidden_dim",
        "MODEL.ROI_HEADS.SCORE_THRESH": "read_out.threshold",
        "MODEL.ROI_HEADS.MIN_DETECTIONS_PER_IMG": "read_out.least",
        "MODEL.ROI_HEADS.DETECTIONS_PER_IMG": "read_out.most",
        "INPUT.MIN_SIZE_TEST": "input.short_side",
        "INPUT.MAX_SIZE_TEST": "input.long_side",
        "INPUT.PIXEL_MEAN": "input.mean",
        "DATALOADER.SIZE_DIVISIBILITY": "input.size_divisibility",
    },
    only_at={
        **vmb_keys.SUPPORTED_ONLY_AT,
        "MODEL.META_ARCHITECTURE": ("AttrRCNN",),
        "MODEL.RELATION_ON": (False,),
        "MODEL.ROI_ATTRIBUTE_HEAD.SHARE_BOX_FEATURE_EXTRACTOR": (True,),
        "MODEL.ROI_ATTRIBUTE_HEAD.PREDICTOR": ("AttributeRCNNPredictor",),
        "MODEL.ROI_ATTRIBUTE_HEAD.POSTPROCESS_ATTRIBUTES_THRESHOLD": (0.05,),
        "MODEL.ROI_ATTRIBUTE_HEAD.MAX_NUM_ATTR_PER_OBJ": (16,),
        "INPUT.TO_BGR255": (True,),
        "INPUT.PIXEL_STD": ((1.0, 1.0, 1.0),),
    },
    without_effect=(
        *vmb_keys.WITHOUT_EFFECT,
        r"MODEL\.ROI_HEADS\.NMS_FILTER",  # the read-out is an option of the extraction
        r"MODEL\.(RPN|ROI_HEADS|ROI_BOX_HEAD)\.FORCE_BOXES",  # so are given boxes
        r"MODEL\.ATTRIBUTE_ON",  # attributes are predicted where the checkpoint has their head
        r"MODEL\.ROI_ATTRIBUTE_HEAD\..*",  # training
        r"MODEL\.(ROI_RELATION_HEAD|FREQ_PRIOR|CONTRASTIVE_LOSS)\..*",  # not in use
    ),
)

_BOTTOM_UP_ATTENTION = VMBModel(
    depth=101,
    rpn_post_nms_top_n=300,
    num_classes=1601,
    stem_pool_padded=False,
    res5_dilation=2,
    pooler_type="ROIPool",
    stored_anchors=True,
    rpn_channels=512,
    clips_to_padded=False,
    num_attributes=400,
)

FRCNN_VG = Lineage(
    base=replace(
        _BOTTOM_UP_ATTENTION,
        anchor_sizes=(64, 128, 256, 512),
        box_convention="frcnn_vg",
        ranks_by_logits=True,
        small_boxes="detectron2",
        attributes="frcnn_vg",
        input=InputStep(rounding="half_up", resize="torch", decoder="opencv", size_divisibility=0),
        read_out=READ_OUTS["frcnn_vg"],
    ),
    fields={
        "model.pixel_mean": "input.mean",
        "input.min_size_test": "input.short_side",
        "input.max_size_test": "input.long_side",
        "size_divisibility": "input.size_divisibility",
        "proposal_generator.hidden_channels": "rpn_channels",
        "proposal_generator.min_size": "rpn_min_size",
        "anchor_generator.sizes": "anchor_sizes",
        "anchor_generator.aspect_ratios": "aspect_ratios",
        "rpn.pre_nms_topk_test": "rpn_pre_nms_top_n",
        "rpn.post_nms_topk_test": "rpn_post_nms_top_n",
        "rpn.nms_thresh": "rpn_nms_threshold",
        "roi_heads.num_classes": "num_classes",
        "roi_heads.nms_thresh_test": "read_out.overlaps",
        "roi_box_head.bbox_reg_weights": "bbox_reg_weights",
        "roi_box_head.pooler_resolution": "pooler_resolution",
        "roi_box_head.num_attrs": "num_attributes",
        "roi_box_head.cls_agnostic_bbox_reg": "class_agnostic_bbox_reg",
        "resnets.depth": "depth",
        "resnets.num_groups": "num_groups",
        "resnets.width_per_group": "width_per_group",
        "resnets.stem_out_channels": "stem_out_channels",
        "resnets.res2_out_channels": "res2_out_channels",
        "resnets.stride_in_1x1": "stride_in_1x1",
        "min_detections": "read_out.least",
        "max_detections": "read_out.most",
    },
    only_at={
        "model.max_pool": (True,),
        "model.load_proposals": (False,),
        "model.pixel_std": ((1.0, 1.0, 1.0),),
        "input.format": ("BGR",),
        "pad_value": (0.0,),
        "anchor_generator.offset": (0,),
        "rpn.in_features": (("res4",),),
        "rpn.bbox_reg_weights": ((1.0, 1.0, 1.0, 1.0),),
        "roi_heads.in_features": (("res4",),),
        "roi_box_head.attr": (True,),
        "roi_box_head.res5halve": (False,),
        "resnets.out_features": (("res4",),),
        "resnets.norm": ("BN",),
    },
    counts_background=False,
    others_ignored=True,
)

BUA = Lineage(
    base=replace(
        _BOTTOM_UP_ATTENTION,
        rpn_min_size=16,
        anchor_sizes=(4, 8, 16, 32),
        bbox_reg_weights=(1.0, 1.0, 1.0, 1.0),
        nms_threshold=0.3,
        box_convention="bua",
        small_boxes="caffe",
        attributes="bua",
        attribute_embedding_dim=256,
        attribute_hidden_dim=512,
        input=InputStep(600, 1000, decoder="opencv", size_divisibility=0),
        read_out=READ_OUTS["bua"],
    ),
    fields={
        "MODEL.PIXEL_MEAN": "input.mean",
        "MODEL.RESNETS.DEPTH": "depth",
        "MODEL.RESNETS.NUM_GROUPS": "num_groups",
        "MODEL.RESNETS.WIDTH_PER_GROUP": "width_per_group",
        "MODEL.RESNETS.STEM_OUT_CHANNELS": "stem_out_channels",
        "MODEL.RESNETS.RES2_OUT_CHANNELS": "res2_out_channels",
        "MODEL.RESNETS.STRIDE_IN_1X1": "stride_in_1x1",
        "MODEL.RESNETS.RES5_DILATION": "res5_dilation",
        "MODEL.ANCHOR_GENERATOR.SIZES": "anchor_sizes",
        "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": "aspect_ratios",
        "MODEL.PROPOSAL_GENERATOR.MIN_SIZE": "rpn_min_size",
        "MODEL.RPN.PRE_NMS_TOPK_TEST": "rpn_pre_nms_top_n",
        "MODEL.RPN.POST_NMS_TOPK_TEST": "rpn_post_nms_top_n",
        "MODEL.RPN.NMS_THRESH": "rpn_nms_threshold",
        "MODEL.ROI_HEADS.NUM_CLASSES": "num_classes",
        "MODEL.ROI_HEADS.NMS_THRESH_TEST": "read_out.overlaps",
        "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": "pooler_resolution",
        "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS": "bbox_reg_weights",
        "MODEL.BUA.RPN.CONV_OUT_CHANNELS": "rpn_channels",
        "MODEL.BUA.ATTRIBUTE.NUM_CLASSES": "num_attributes",
        "MODEL.BUA.EXTRACTOR.MIN_BOXES": "read_out.least",
        "MODEL.BUA.EXTRACTOR.MAX_BOXES": "read_out.most",
        "MODEL.BUA.EXTRACTOR.CONF_THRESH": "read_out.threshold",
    },
    only_at={
        "MODEL.META_ARCHITECTURE": ("GeneralizedBUARCNN",),
        "MODEL.PIXEL_STD": ((1.0, 1.0, 1.0),),
        "MODEL.RESNETS.OUT_FEATURES": (("res4",),),
        "MODEL.RESNETS.NORM": ("BN",),
        "MODEL.BACKBONE.NAME": ("build_bua_resnet_backbone",),
        "MODEL.ANCHOR_GENERATOR.OFFSET": (0.0,),
        "MODEL.PROPOSAL_GENERATOR.NAME": ("BUARPN",),
        "MODEL.RPN.HEAD_NAME": ("StandardBUARPNHead",),
        "MODEL.RPN.BBOX_REG_WEIGHTS": ((1.0, 1.0, 1.0, 1.0),),
        "MODEL.ROI_HEADS.NAME": ("BUACaffeRes5ROIHeads",),
        "MODEL.ROI_BOX_HEAD.POOLER_TYPE": ("ROIPool",),
        "MODEL.BUA.CAFFE": (True,),
        "MODEL.BUA.RESNET_VERSION": (1,),
        "MODEL.BUA.ATTRIBUTE_ON": (True,),
        "MODEL.BUA.EXTRACTOR.MODE": (1,),
    },
    without_effect=(
        r"(DATASETS|DATALOADER|SOLVER|TEST)\..*",
        r"OUTPUT_DIR|VERSION|CUDNN_BENCHMARK|SEED|VIS_PERIOD",
        r"INPUT\..*",  # the original's script has its sizes written out
        r"MODEL\.(WEIGHTS|DEVICE|LOAD_PROPOSALS|MASK_ON|KEYPOINT_ON)",
        r"MODEL\.BACKBONE\.FREEZE_AT",
        r"MODEL\.ROI_HEADS\.SCORE_THRESH_TEST",  # the read-out has a threshold of its own
        r"MODEL\.(RPN|ROI_HEADS)\.(BATCH_SIZE_PER_IMAGE|POSITIVE_FRACTION|IOU_.*)",
        r"MODEL\.RPN\.(PRE|POST)_NMS_TOPK_TRAIN",
        r"MODEL\.ROI_BOX_HEAD\.POOLER_SAMPLING_RATIO",  # RoI pooling takes no samples
        r"MODEL\.BUA\.(EXTRACT_FEATS|ATTRIBUTE\..*|EXTRACTOR\..*)",
    ),
)


def lineage_of(tree: Mapping[str, Any]) -> Lineage:
    """The lineage whose yaml a nested dict is."""
    if {"roi_box_head", "roi_heads", "resnets"} & set(tree):
        return FRCNN_VG
    model = tree.get("MODEL")
    architecture = model.get("META_ARCHITECTURE") if isinstance(model, Mapping) else None
    if architecture == "GeneralizedBUARCNN":
        return BUA
    if architecture in ("AttrRCNN", "SceneParser"):
        return VINVL
    return VMB
