"""The keys of a VMB yaml: used ones, ones without effect, and ones supported at one value only."""

BACKBONE_CHANNEL_KEYS = ("MODEL.BACKBONE.OUT_CHANNELS", "MODEL.RESNETS.BACKBONE_OUT_CHANNELS")

# key -> field of VMBModel
FIELDS = {
    "MODEL.RESNETS.NUM_GROUPS": "num_groups",
    "MODEL.RESNETS.WIDTH_PER_GROUP": "width_per_group",
    "MODEL.RESNETS.STRIDE_IN_1X1": "stride_in_1x1",
    "MODEL.RESNETS.STEM_OUT_CHANNELS": "stem_out_channels",
    "MODEL.RESNETS.RES2_OUT_CHANNELS": "res2_out_channels",
    "MODEL.RPN.ANCHOR_SIZES": "anchor_sizes",
    "MODEL.RPN.ASPECT_RATIOS": "aspect_ratios",
    "MODEL.RPN.ANCHOR_STRIDE": "anchor_strides",
    "MODEL.RPN.PRE_NMS_TOP_N_TEST": "rpn_pre_nms_top_n",
    "MODEL.RPN.POST_NMS_TOP_N_TEST": "rpn_post_nms_top_n",
    "MODEL.RPN.FPN_POST_NMS_TOP_N_TEST": "rpn_fpn_post_nms_top_n",
    "MODEL.RPN.NMS_THRESH": "rpn_nms_threshold",
    "MODEL.RPN.MIN_SIZE": "rpn_min_size",
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": "pooler_resolution",
    "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": "pooler_sampling_ratio",
    "MODEL.ROI_BOX_HEAD.POOLER_SCALES": "pooler_scales",
    "MODEL.ROI_BOX_HEAD.MLP_HEAD_DIM": "mlp_head_dim",
    "MODEL.ROI_BOX_HEAD.NUM_CLASSES": "num_classes",
    "MODEL.CLS_AGNOSTIC_BBOX_REG": "class_agnostic_bbox_reg",
    "MODEL.ROI_HEADS.BBOX_REG_WEIGHTS": "bbox_reg_weights",
    "MODEL.ROI_HEADS.SCORE_THRESH": "score_threshold",
    "MODEL.ROI_HEADS.NMS": "nms_threshold",
    "MODEL.ROI_HEADS.DETECTIONS_PER_IMG": "detections_per_image",
    **{key: "backbone_out_channels" for key in BACKBONE_CHANNEL_KEYS},
}

# key -> the supported values
SUPPORTED_ONLY_AT = {
    "MODEL.META_ARCHITECTURE": ("GeneralizedRCNN",),
    "MODEL.RPN_ONLY": (False,),
    "MODEL.MASK_ON": (False,),
    "MODEL.KEYPOINT_ON": (False,),
    "MODEL.RETINANET_ON": (False,),
    "MODEL.BACKBONE.USE_GN": (False,),
    "MODEL.FPN.USE_GN": (False,),
    "MODEL.FPN.USE_RELU": (False,),
    "MODEL.RESNETS.TRANS_FUNC": ("BottleneckWithFixedBatchNorm",),
    "MODEL.RESNETS.STEM_FUNC": ("StemWithFixedBatchNorm",),
    "MODEL.RESNETS.RES5_DILATION": (1,),
    "MODEL.RESNETS.STAGE_WITH_DCN": ((False, False, False, False),),
    "MODEL.RPN.RPN_HEAD": ("SingleConvRPNHead",),
    "MODEL.ROI_BOX_HEAD.USE_GN": (False,),
    "MODEL.ROI_BOX_HEAD.DILATION": (1,),
}

# Patterns of the keys that have no effect on region features
WITHOUT_EFFECT = (
    r"(DATASETS|DATALOADER|SOLVER|TEST)\..*",
    r"OUTPUT_DIR|PATHS_CATALOG|DTYPE|AMP_VERBOSE|MODEL\.(WEIGHT|DEVICE)",
    r"INPUT\..*",  # MMF's extraction has its own preprocessing, whatever the yaml says
    # training
    r"MODEL\.BACKBONE\.FREEZE_CONV_BODY_AT",
    r"MODEL\.(RPN|ROI_HEADS)\.(FG_IOU_THRESHOLD|BG_IOU_THRESHOLD)",
    r"MODEL\.(RPN|ROI_HEADS)\.(BATCH_SIZE_PER_IMAGE|POSITIVE_FRACTION)",
    r"MODEL\.RPN\.(PRE_NMS|POST_NMS|FPN_POST_NMS)_TOP_N_TRAIN",
    r"MODEL\.RPN\.(STRADDLE_THRESH|FPN_POST_NMS_PER_BATCH)",
    # parts that are not in use
    r"MODEL\.(ROI_MASK_HEAD|ROI_KEYPOINT_HEAD|RETINANET|FBNET|GROUP_NORM)\..*",
    r"MODEL\.RESNETS\.(WITH_MODULATED_DCN|DEFORMABLE_GROUPS)",
    r"MODEL\.ROI_BOX_HEAD\.(CONV_HEAD_DIM|NUM_STACKED_CONVS)",
    r"MODEL\.ROI_BOX_HEAD\.RETURN_FC_FEATS",  # fc6 and fc7 can always be read out
    r"MODEL\.ROI_BOX_HEAD\.ATTR",  # attributes are not predicted
)

# The kind of network. They have to fit each other.
STRUCTURE_KEYS = (
    "MODEL.BACKBONE.CONV_BODY",
    "MODEL.RPN.USE_FPN",
    "MODEL.ROI_HEADS.USE_FPN",
    "MODEL.ROI_BOX_HEAD.FEATURE_EXTRACTOR",
    "MODEL.ROI_BOX_HEAD.PREDICTOR",
)
