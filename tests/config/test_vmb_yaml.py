"""Every key of a yaml is translated, harmless for a reason, or an error that names it."""

import dataclasses

import pytest
import support
import yaml

from vmb_d2.config import VMBModel, get_cfg, named_model, parse_vmb_config, read_vmb_model
from vmb_d2.errors import ConfigError


def test_silence_means_the_original_defaults():
    model = parse_vmb_config({})
    assert model == VMBModel()
    assert (model.anchor_strides, model.pooler_scales) == ((16,), (1 / 16,))
    assert (model.rpn_pre_nms_top_n, model.rpn_post_nms_top_n) == (6000, 1000)
    assert (model.rpn_fpn_post_nms_top_n, model.num_classes) == (2000, 81)
    assert (model.mlp_head_dim, model.backbone_out_channels) == (1024, 1024)
    assert (model.pooler_resolution, model.pooler_sampling_ratio) == (14, 0)
    assert (model.stride_in_1x1, model.bbox_reg_weights) == (True, (10, 10, 5, 5))


def test_named_models():
    assert dataclasses.asdict(named_model("x152")) == {
        **dataclasses.asdict(VMBModel()),
        "depth": 152,
        "fpn": True,
        "num_groups": 32,
        "width_per_group": 8,
        "stride_in_1x1": False,
        "backbone_out_channels": 512,
        "anchor_strides": (4, 8, 16, 32, 64),
        "rpn_pre_nms_top_n": 1000,
        "rpn_post_nms_top_n": 1000,
        "rpn_fpn_post_nms_top_n": 1000,
        "pooler_resolution": 7,
        "pooler_sampling_ratio": 2,
        "pooler_scales": (1 / 4, 1 / 8, 1 / 16, 1 / 32),
        "mlp_head_dim": 2048,
        "num_classes": 1601,
    }
    x101 = named_model("x101")
    assert x101.differences(named_model("x152")) == [
        "depth: 101, not 152",
        "num_groups: 64, not 32",
        "width_per_group: 4, not 8",
    ]
    assert named_model("r101_c4").stride_in_1x1
    assert not named_model("x152_c4").stride_in_1x1


def test_names():
    assert named_model("X-152") == named_model("x152")
    assert get_cfg("X-101").MODEL.RESNETS.DEPTH == 101
    with pytest.raises(
        ConfigError, match="x152, x101, r101_c4, x152_c4, vinvl, frcnn_vg, bua, X-152, X-101"
    ):
        get_cfg("x153")


def test_keys_without_effect_change_nothing():
    tree = support.yaml_with(support.TINY_FPN, "SOLVER.BASE_LR", 0.005)
    tree["INPUT"] = {"MIN_SIZE_TEST": 600}
    assert parse_vmb_config(tree) == parse_vmb_config(support.yaml_tree(support.TINY_FPN))


@pytest.mark.parametrize("spelling", ["BACKBONE.OUT_CHANNELS", "RESNETS.BACKBONE_OUT_CHANNELS"])
def test_both_spellings_of_the_channels(spelling):
    tree = support.yaml_tree(support.TINY_FPN)
    del tree["MODEL"]["BACKBONE"]["OUT_CHANNELS"]
    section, leaf = spelling.split(".")
    tree["MODEL"][section][leaf] = 72
    assert parse_vmb_config(tree).backbone_out_channels == 72


@pytest.mark.parametrize("value", ["(32, 64, 128, 256, 480)", [32, 64, 128, 256, 480]])
def test_tuples_as_text_and_as_lists(value):
    model = parse_vmb_config(support.yaml_with(support.TINY_FPN, "MODEL.RPN.ANCHOR_SIZES", value))
    assert model.anchor_sizes == (32, 64, 128, 256, 480)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("MODEL.RESNETS.BACKBONE_OUT_CHANNELS", 72, "contradict"),
        ("MODEL.META_ARCHITECTURE", "RetinaNet", "GeneralizedRCNN"),
        ("MODEL.MASK_ON", True, "only False"),
        ("MODEL.RESNETS.RES5_DILATION", 2, "only 1"),
        ("MODEL.RESNETS.STAGE_WITH_DCN", [False, True, True, True], "not supported"),
        ("MODEL.BACKBONE.CONV_BODY", "R-34-FPN", "R-152-FPN"),
        ("MODEL.ROI_BOX_HEAD.FEATURE_EXTRACTOR", "FPNXconv1fcFeatureExtractor", "FPN2MLP"),
        ("MODEL.ROI_BOX_HEAD.PREDICTOR", "FastRCNNPredictor", "FPNPredictor"),
        ("MODEL.RPN.USE_FPN", False, "only True"),
        ("MODEL.RPN.ANCHOR_STRIDE", "(16,)", "doesn't fit"),
        ("MODEL.RPN.ANCHOR_SIZES", "(32, 64)", "2 sizes for 5 levels"),
        ("MODEL.ROI_BOX_HEAD.POOLER_SCALES", "(0.25, 0.125)", "only"),
        ("MODEL.ROI_BOX_HEAD.NUM_CLASSES", "many", "type expected"),
        ("MODEL.ROI_BOX_HEAD.NUM_CLASSES", 10.5, "type expected"),
        ("MODEL.RESNETS.STRIDE_IN_1X1", 1, "type expected"),
        ("MODEL.NEW_SECTION.KEY", 1, "not a key that VMB-D2 knows"),
        ("TOP_LEVEL", 1, "not a key that VMB-D2 knows"),
    ],
)
def test_mistakes_name_their_key(key, value, message):
    with pytest.raises(ConfigError, match=message) as caught:
        parse_vmb_config(support.yaml_with(support.TINY_FPN, key, value))
    assert key in str(caught.value)
    assert "\n" not in str(caught.value)


def test_all_mistakes_are_named_at_once():
    tree = support.yaml_with(support.TINY_FPN, "MODEL.NEW.KEY", 1)
    tree["OTHER"] = {"KEY": 2}
    tree["MODEL"]["MASK_ON"] = True
    tree["MODEL"]["ROI_BOX_HEAD"] |= {"PREDICTOR": "Mine", "NUM_CLASSES": "many"}
    tree["MODEL"]["RPN"]["USE_FPN"] = False
    with pytest.raises(ConfigError) as caught:
        parse_vmb_config(tree)
    text = str(caught.value)
    assert "MODEL.NEW.KEY, OTHER.KEY: not a key that VMB-D2 knows" in text
    for key in ("MODEL.MASK_ON", "BOX_HEAD.PREDICTOR", "NUM_CLASSES", "MODEL.RPN.USE_FPN"):
        assert f"{key}: " in text
    assert "\n" not in text


@pytest.fixture
def write(tmp_path):
    """Writes a file of these keys below tmp_path, and gives its path."""

    def write(name, tree):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(tree))
        return path

    return write


def test_a_base_is_read_first(write):
    write("bases/far.yaml", support.yaml_tree(support.TINY_FPN))
    write("bases/near.yaml", {"_BASE_": "far.yaml", "MODEL": {"RPN": {"NMS_THRESH": 0.6}}})
    over = {"MODEL": {"RPN": {"PRE_NMS_TOP_N_TEST": 77}, "ROI_HEADS": {"NMS": 0.4}}}
    model = read_vmb_model(write("sub/own.yaml", {"_BASE_": "../bases/near.yaml", **over}))
    expected = dataclasses.replace(
        parse_vmb_config(support.yaml_tree(support.TINY_FPN)),
        rpn_nms_threshold=0.6,
        rpn_pre_nms_top_n=77,
        nms_threshold=0.4,
    )
    assert model == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        ("a: [1", "can't be read: while parsing"),
        ("just text", "no VMB configuration"),
        ("_BASE_: none.yaml", "none.yaml"),
        ("_BASE_: own.yaml", "can't be read"),
        ("{_BASE_: flat.yaml, MODEL: {RPN: {NMS_THRESH: 0.5}}}", "RPN"),
    ],
)
def test_files_that_cant_be_used(write, tmp_path, content, message):
    write("flat.yaml", {"MODEL": {"RPN": 1}})
    own = tmp_path / "own.yaml"
    if content is not None:
        own.write_text(content)
    with pytest.raises(ConfigError, match=message) as caught:
        read_vmb_model(own)
    assert str(own) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_description_survives_a_round_trip():
    model = named_model("r101_c4")
    assert VMBModel.from_dict(model.to_dict()) == model
    older = {k: v for k, v in model.to_dict().items() if k not in ("input", "box_convention")}
    assert VMBModel.from_dict(older) == model
    with pytest.raises(ConfigError, match="colour"):
        VMBModel.from_dict({**model.to_dict(), "colour": "red"})
