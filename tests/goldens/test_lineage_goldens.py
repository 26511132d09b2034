"""VinVL's, frcnn_vg's and bua's models against what their originals gave, by lineage_checks.py."""

import copy
import dataclasses

import numpy as np
import pytest
import support
import torch
from lineage_checks import check

from reference import goldens
from vmb_d2.comparison.fidelity import relative_errors
from vmb_d2.config import to_detectron2
from vmb_d2.data import preprocessing
from vmb_d2.extractor import RegionFeatureExtractor
from vmb_d2.modeling import VMBRCNN
from vmb_d2.selection.options import RegionOptions
from vmb_d2.stores.mmf import MMFReader

# tag -> options of the extraction, and of the input
SETS = {
    "tiny_vinvl": {
        "readme": {},
        "reg": {"read_out": "vinvl_reg"},
        "demo": {"read_out": "vinvl_reg"},
        "filter0": {"read_out": "vinvl_filter0_reg"},
        "filter0_ignore": {"read_out": "vinvl_filter0"},
        "filter2_ignore": {"read_out": "vinvl_filter2"},
        "fixed36": {"num_features": 36},
        "readme_bs2": {},
        "given_boxes": {},
    },
    "tiny_frcnn_vg": {
        "max36": {},
        "min10max100": {"min_features": 10, "max_features": 100},
        "max203.second_threshold": {"num_features": 203},
        "max36.rgb": {"channel_order": "rgb"},
        "max36.size600": {"short_side": 600, "long_side": 1000},
        "max36.size288": {"short_side": 288},
        "max36.background_plus4": {},
        "max36.bs2": {},
        "given_boxes": {},
        "airsplay_notebook": {"read_out": "airsplay_notebook", "resize": "pil"},
        "airsplay_script": {
            "read_out": "airsplay_script",
            "resize": "pil",
            "short_side": 600,
            "long_side": 1000,
        },
    },
    "tiny_bua_caffe": {"max36": {"num_features": 36}, "min10max100": {}},
}
BATCH_MATES = {
    "readme_bs2": ("chelsea.png", "coffee.png"),
    "max36.bs2": ("camera.png", "coffee.png"),
}
INPUT = ("short_side", "long_side", "resize", "channel_order")

CASES = [
    (model, path, tag, image)
    for model in SETS
    for path, tag, image in goldens.find(rf"{model}\.seed0\.")
]


def load(path):
    with np.load(path) as golden:
        return dict(golden)


def extractor(model, tag, **input_changes):
    options = dict(SETS[model][tag])
    step = {name: options.pop(name) for name in INPUT if name in options} | input_changes
    description = support.description(model).with_input(step)
    return RegionFeatureExtractor(support.tiny_model(model), RegionOptions(**options), description)


def regions_of(model, golden, tag, image, **input_changes):
    """What the extractor gives for the golden's image, in the golden's batch."""
    names = BATCH_MATES.get(tag, (image,))
    own = extractor(model, tag, **input_changes)
    batch = [preprocessing.load(goldens.image_path(name), own.input_step) for name in names]
    sizes = [loaded.padded_size for loaded in batch]
    size = tuple(max(side) for side in zip(*sizes, strict=True))
    boxes = None
    if tag == "given_boxes":
        boxes = [torch.from_numpy(golden.get("given_boxes", golden["boxes"]))]
    return own.extract_batch(batch, size, boxes)[names.index(image)]


def test_every_golden_is_checked():
    assert {(model, tag) for model, _, tag, _ in CASES} == {
        (model, tag) for model, tags in SETS.items() for tag in tags
    }


@pytest.mark.parametrize(
    ("model", "path", "tag", "image"),
    [
        pytest.param(*case, marks=() if case[-1] == "coffee.png" else pytest.mark.slow)
        for case in CASES
    ],
    ids=[path.stem for _, path, _, _ in CASES],
)
def test_regions(monkeypatch, model, path, tag, image):
    golden = load(path)
    if tag == "max36.background_plus4":
        plus_four_for_the_background(model, monkeypatch)
    check(golden, regions_of(model, golden, tag, image), image)


def plus_four_for_the_background(model, monkeypatch):
    predictor = support.tiny_model(model).roi_heads.box_predictor
    bias = predictor.cls_score.bias.clone()
    bias[-1] += 4
    monkeypatch.setitem(predictor.cls_score._parameters, "bias", torch.nn.Parameter(bias))


APP = {
    "tiny_vinvl": ("vinvl", "reg", ["read_out=vinvl_reg"]),
    "tiny_frcnn_vg": ("frcnn_vg", "max36.rgb", ["input.channel_order=rgb"]),
    "tiny_bua_caffe": ("bua", "max36", ["extract.num_features=36", "extract.batch_size=2"]),
}


@pytest.mark.slow
@pytest.mark.parametrize("model", APP)
def test_regions_of_the_app(tmp_path, model):
    name, tag, options = APP[model]
    recorded = goldens.find(rf"{model}\.seed0\.{tag}\.[a-z]+\.")
    source = support.links(tmp_path / "in", *(image for _, _, image in recorded))
    done = support.extract_tiny(model, source, tmp_path / "out", f"model={name}", *options)
    assert done.returncode == 0, done.stderr
    for path, _, image in recorded:
        check(load(path), MMFReader(tmp_path / "out").read(image.split(".")[0]), image)


@pytest.mark.slow
@pytest.mark.parametrize("model", SETS)
@pytest.mark.parametrize("batch_size", [2, 5])
def test_batches_change_nothing(model, batch_size):
    """Not even on images of other sizes."""
    own = extractor(model, next(iter(SETS[model])))
    paths = [goldens.image_path(name) for name in ("coffee.png", "rocket.jpg", "coffee.png")]
    for path, regions in zip(paths, own.extract(paths, batch_size=batch_size), strict=True):
        alone = own.extract(path)
        assert relative_errors(alone.features, regions.features).max() < 1e-5
        assert np.abs(alone.bbox - regions.bbox).max() < 0.01
        assert alone.objects.tolist() == regions.objects.tolist()


# model, tag, image -> changes of the model that give other regions
MISTAKES = [
    ("tiny_vinvl", "readme", "coffee.png", {"input": {"resize": "opencv"}}),
    ("tiny_vinvl", "readme", "rocket.jpg", {"input": {"rounding": "one_scale"}}),
    ("tiny_vinvl", "readme", "horse.png", {"input": {"rounding": "half_up"}}),
    ("tiny_vinvl", "readme", "coffee.png", {"input": {"size_divisibility": 32}}),
    ("tiny_vinvl", "readme", "coffee.png", {"box_convention": "vmb"}),
    ("tiny_vinvl", "readme", "coffee.png", {"box_convention": "frcnn_vg"}),
    ("tiny_vinvl", "readme", "coffee.png", {"read_out": {"overlaps": (0.5,)}}),
    ("tiny_vinvl", "readme", "coffee.png", {"attributes": "frcnn_vg"}),
    ("tiny_frcnn_vg", "max36", "rocket.jpg", {"input": {"resize": "opencv"}}),
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
    own = RegionFeatureExtractor(network, RegionOptions(**SETS[model][tag]), wrong)
    ((path, _, _),) = goldens.find(rf"{model}\.seed0\.{tag}\.{image}")
    with pytest.raises(AssertionError):
        check(load(path), own.extract(goldens.image_path(image)), image)


def test_an_epsilon_that_is_missing_is_noticed():
    network = copy.deepcopy(support.tiny_model("tiny_frcnn_vg"))
    for module in network.modules():
        if hasattr(module, "running_var"):
            module.eps = 1e-12
    own = RegionFeatureExtractor(network, RegionOptions(), support.description("tiny_frcnn_vg"))
    ((path, _, image),) = goldens.find(r"tiny_frcnn_vg\.seed0\.max36\.coffee")
    with pytest.raises(AssertionError):
        check(load(path), own.extract(goldens.image_path(image)), image)
