"""The yaml files of VinVL, frcnn_vg and bua: what is taken, what is refused, what is ignored."""

import dataclasses

import pytest
import support

from vmb_d2.config import VMBModel, named_model, parse_vmb_config
from vmb_d2.errors import ConfigError

TINY = dict(zip(("vinvl", "frcnn_vg", "bua"), support.TINY_LINEAGES, strict=True))


@pytest.mark.parametrize("model", TINY)
def test_the_tiny_model_differs_in_its_sizes_only(model):
    tiny, full = support.description(TINY[model]), named_model(model)
    differing = {line.partition(":")[0] for line in tiny.differences(full)}
    assert differing <= {
        "num_groups",
        "width_per_group",
        "stem_out_channels",
        "res2_out_channels",
        "backbone_out_channels",
        "rpn_channels",
        "num_classes",
        "num_attributes",
        "attribute_embedding_dim",
        "attribute_hidden_dim",
    }
    assert {"num_classes", "num_attributes", "res2_out_channels"} <= differing
    assert VMBModel.from_dict(tiny.to_dict()) == tiny


# model, key, value -> field, its value
TAKEN = [
    ("vinvl", "INPUT.MIN_SIZE_TEST", 480, "input.short_side", 480),
    ("vinvl", "INPUT.MAX_SIZE_TEST", 900, "input.long_side", 900),
    ("vinvl", "INPUT.PIXEL_MEAN", [1.5, 2, 3], "input.mean", (1.5, 2, 3)),
    ("vinvl", "DATALOADER.SIZE_DIVISIBILITY", 32, "input.size_divisibility", 32),
    ("vinvl", "MODEL.ROI_HEADS.SCORE_THRESH", 0.1, "read_out.threshold", 0.1),
    ("vinvl", "MODEL.ROI_HEADS.MIN_DETECTIONS_PER_IMG", 36, "read_out.least", 36),
    ("vinvl", "MODEL.ROI_HEADS.DETECTIONS_PER_IMG", 50, "read_out.most", 50),
    ("vinvl", "MODEL.ROI_BOX_HEAD.NUM_CLASSES", 1849, "num_classes", 1849),
    ("vinvl", "MODEL.ROI_ATTRIBUTE_HEAD.NUM_ATTRIBUTES", 11, "num_attributes", 10),
    ("vinvl", "MODEL.ROI_ATTRIBUTE_HEAD.ATTR_EMD_DIM", 128, "attribute_hidden_dim", 128),
    ("vinvl", "MODEL.RPN.POST_NMS_TOP_N_TEST", 150, "rpn_post_nms_top_n", 150),
    ("frcnn_vg", "input.min_size_test", 600, "input.short_side", 600),
    ("frcnn_vg", "input.max_size_test", 1000, "input.long_side", 1000),
    ("frcnn_vg", "model.pixel_mean", [1.5, 2.5, 3.5], "input.mean", (1.5, 2.5, 3.5)),
    ("frcnn_vg", "roi_heads.num_classes", 1600, "num_classes", 1601),
    ("frcnn_vg", "roi_heads.nms_thresh_test", [0.4, 0.8], "read_out.overlaps", (0.4, 0.8)),
    ("frcnn_vg", "roi_box_head.num_attrs", 400, "num_attributes", 400),
    ("frcnn_vg", "rpn.post_nms_topk_test", 150, "rpn_post_nms_top_n", 150),
    ("frcnn_vg", "min_detections", 10, "read_out.least", 10),
    ("frcnn_vg", "max_detections", 100, "read_out.most", 100),
    ("bua", "MODEL.ROI_HEADS.NUM_CLASSES", 1601, "num_classes", 1601),
    ("bua", "MODEL.ROI_HEADS.NMS_THRESH_TEST", 0.4, "read_out.overlaps", (0.4,)),
    ("bua", "MODEL.BUA.ATTRIBUTE.NUM_CLASSES", 401, "num_attributes", 400),
    ("bua", "MODEL.BUA.EXTRACTOR.MIN_BOXES", 36, "read_out.least", 36),
    ("bua", "MODEL.BUA.EXTRACTOR.MAX_BOXES", 36, "read_out.most", 36),
    ("bua", "MODEL.BUA.EXTRACTOR.CONF_THRESH", 0.3, "read_out.threshold", 0.3),
    ("bua", "MODEL.PROPOSAL_GENERATOR.MIN_SIZE", 8, "rpn_min_size", 8),
]


@pytest.mark.parametrize(("model", "key", "value", "field", "expected"), TAKEN, ids=str)
def test_values_that_are_taken(model, key, value, field, expected):
    found = parse_vmb_config(support.yaml_with(TINY[model], key, value))
    part, _, name = field.rpartition(".")
    before = support.description(TINY[model])
    if part:
        changed = dataclasses.replace(getattr(before, part), **{name: expected})
        assert found == dataclasses.replace(before, **{part: changed})
    else:
        assert found == dataclasses.replace(before, **{name: expected})


REFUSED = [
    ("vinvl", "MODEL.META_ARCHITECTURE", "SceneParser", "only 'AttrRCNN'"),
    ("vinvl", "MODEL.RELATION_ON", True, "only False"),
    ("vinvl", "MODEL.ROI_ATTRIBUTE_HEAD.SHARE_BOX_FEATURE_EXTRACTOR", False, "only True"),
    ("vinvl", "MODEL.BACKBONE.CONV_BODY", "R-34-C4", "R-152-C4"),
    ("vinvl", "INPUT.TO_BGR255", False, "only True"),
    ("vinvl", "MODEL.NEW", 1, "not a key that VMB-D2 knows"),
    ("frcnn_vg", "input.format", "RGB", "only 'BGR'"),
    ("frcnn_vg", "model.max_pool", False, "only True"),
    ("frcnn_vg", "roi_box_head.res5halve", True, "only False"),
    ("frcnn_vg", "resnets.norm", "GN", "only 'BN'"),
    ("frcnn_vg", "roi_heads.num_classes", "many", "type expected"),
    ("bua", "MODEL.BUA.CAFFE", False, "only True"),
    ("bua", "MODEL.BUA.RESNET_VERSION", 2, "only 1"),
    ("bua", "MODEL.BUA.EXTRACTOR.MODE", 2, "only 1"),
    ("bua", "MODEL.ROI_BOX_HEAD.POOLER_TYPE", "ROIAlignV2", "only 'ROIPool'"),
    ("bua", "MODEL.NEW", 1, "not a key that VMB-D2 knows"),
]


@pytest.mark.parametrize(("model", "key", "value", "message"), REFUSED, ids=str)
def test_what_cant_be_done_is_refused_by_name(model, key, value, message):
    with pytest.raises(ConfigError, match=message) as caught:
        parse_vmb_config(support.yaml_with(TINY[model], key, value))
    assert f"{key}: " in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("model", "key", "value"),
    [
        ("vinvl", "MODEL.ROI_RELATION_HEAD.ALGORITHM", "sg_neuralmotif"),
        ("vinvl", "MODEL.ROI_HEADS.NMS_FILTER", 2),
        ("vinvl", "DATASETS.LABELMAP_FILE", "VG-SGG-dicts-vgoi6-clipped.json"),
        ("vinvl", "MODEL.ROI_ATTRIBUTE_HEAD.LOSS_WEIGHT", 0.5),
        ("frcnn_vg", "a_key.of_another_version", "anything"),
        ("frcnn_vg", "resnets.another", 7),
        ("frcnn_vg", "roi_heads.score_thresh_test", 0.9),
        ("bua", "INPUT.MIN_SIZE_TEST", 300),
        ("bua", "DATASETS.TEST", "('coco',)"),
        ("bua", "MODEL.BUA.EXTRACTOR.ANOTHER", True),
    ],
)
def test_keys_without_effect_change_nothing(model, key, value):
    assert parse_vmb_config(support.yaml_with(TINY[model], key, value)) == support.description(
        TINY[model]
    )
