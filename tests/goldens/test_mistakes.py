"""Mistakes that the originals' descriptions warn of: the checks of the goldens notice each."""

import copy
import dataclasses

import pytest
import support
from golden_checks import check

from reference import goldens
from reference.extractions import OPTIONS
from vmb_d2.config import to_detectron2
from vmb_d2.extractor import RegionFeatureExtractor
from vmb_d2.modeling import VMBRCNN
from vmb_d2.selection.options import RegionOptions

OPENCV = {"resize": "opencv"}
DIVISIBLE = {"input": {"size_divisibility": 32}}
# model, tag, image -> changes of the model that give other regions
MISTAKES = [
    ("tiny_vinvl", "readme", "coffee.png", {"input": OPENCV}),
    ("tiny_vinvl", "readme", "rocket.jpg", {"input": {"rounding": "one_scale"}}),
    ("tiny_vinvl", "readme", "horse.png", {"input": {"rounding": "half_up"}}),
    ("tiny_vinvl", "readme", "coffee.png", DIVISIBLE),
    ("tiny_vinvl", "readme", "coffee.png", {"clips_to_padded": True, **DIVISIBLE}),
    ("tiny_vinvl", "readme", "coffee.png", {"box_convention": "vmb"}),
    ("tiny_vinvl", "readme", "coffee.png", {"box_convention": "frcnn_vg"}),
    ("tiny_vinvl", "readme", "coffee.png", {"read_out": {"overlaps": (0.5,)}}),
    ("tiny_vinvl", "readme", "coffee.png", {"attributes": "frcnn_vg"}),
    ("tiny_frcnn_vg", "max36", "rocket.jpg", {"input": OPENCV}),
    ("tiny_frcnn_vg", "max36", "rocket.jpg", {"input": {"rounding": "one_scale", **OPENCV}}),
    ("tiny_frcnn_vg", "max36", "coffee.png", {"input": {"resize": "pil"}}),
    ("tiny_frcnn_vg", "max36", "coffee.png", {"input": {"channel_order": "rgb"}}),
    ("tiny_frcnn_vg", "max36", "coffee.png", {"stem_pool_padded": True}),
    ("tiny_frcnn_vg", "max36", "coffee.png", {"res5_dilation": 1}),
    ("tiny_frcnn_vg", "max36", "coffee.png", {"pooler_type": "ROIAlign"}),
    ("tiny_frcnn_vg", "max36", "coffee.png", {"stored_anchors": False}),
    ("tiny_frcnn_vg", "max36", "coffee.png", {"box_convention": "bua"}),
    ("tiny_frcnn_vg", "max36", "coffee.png", {"attributes": "bua"}),
    ("tiny_bua_caffe", "max36", "coffee.png", {"box_convention": "vmb"}),
    ("tiny_bua_caffe", "max36", "coffee.png", {"small_boxes": "detectron2"}),
    ("tiny_bua_caffe", "min10max100", "coffee.png", {"read_out": {"order": "confidence"}}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("model", "tag", "image", "change"), MISTAKES, ids=str)
def test_a_mistake_is_noticed(model, tag, image, change):
    description = support.description(model)
    values = {
        name: dataclasses.replace(getattr(description, name), **value)
        if isinstance(value, dict)
        else value
        for name, value in change.items()
    }
    wrong = dataclasses.replace(description, **values)
    network = VMBRCNN(to_detectron2(wrong)).eval()
    network.load_state_dict(support.tiny_model(model).state_dict(), strict=False)
    own = RegionFeatureExtractor(network, RegionOptions(**OPTIONS[model][tag]), wrong)
    ((path, _, _),) = goldens.find(rf"{model}\.seed0\.{tag}\.{image}")
    with pytest.raises(AssertionError):
        check(path, own.extract(goldens.image_path(image)), image)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "tag", "change"), [("tiny_frcnn_vg", "max36", -1e-5), ("tiny_vinvl", "readme", 1e-5)]
)
def test_another_epsilon_is_noticed(model, tag, change):
    """frcnn_vg's batch norm without one, VinVL's with one."""
    network = copy.deepcopy(support.tiny_model(model))
    for module in network.modules():
        if hasattr(module, "running_var"):
            module.eps = max(module.eps + change, 1e-12)
    own = RegionFeatureExtractor(network, RegionOptions(), support.description(model))
    ((path, _, image),) = goldens.find(rf"{model}\.seed0\.{tag}\.coffee")
    with pytest.raises(AssertionError):
        check(path, own.extract(goldens.image_path(image)), image)


@pytest.mark.slow
@pytest.mark.parametrize("mistake", ["half a pixel", "embedding"])
def test_vinvls_mistakes_are_noticed(mistake):
    """RoIs shifted by half a pixel, and classes embedded as their neighbours."""
    network = copy.deepcopy(support.tiny_model("tiny_vinvl"))
    if mistake == "embedding":
        embedding = network.roi_heads.attribute_head.cls_embedding.weight
        embedding.data = embedding.data.roll(1, dims=0)
    else:
        (pooler,) = network.roi_heads.pooler.level_poolers
        pooler.register_forward_pre_hook(lambda _, inputs: (inputs[0], shifted(inputs[1])))
    own = RegionFeatureExtractor(network, RegionOptions(), support.description("tiny_vinvl"))
    ((path, _, image),) = goldens.find(r"tiny_vinvl\.seed0\.readme\.coffee")
    with pytest.raises(AssertionError):
        check(path, own.extract(goldens.image_path(image)), image)


def shifted(rois):
    """By half a pixel of the map of stride 16."""
    return rois - rois.new_tensor([0, 8, 8, 8, 8])
