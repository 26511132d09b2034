"""How the goldens of VinVL's, frcnn_vg's and bua's models were made, and the same made here."""

import numpy as np
import support
import torch

from reference import goldens
from vmb_d2.data import preprocessing
from vmb_d2.extractor import RegionFeatureExtractor
from vmb_d2.selection.options import RegionOptions

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


def batch_of(own, tag, image):
    """The golden's images preprocessed, the size they are padded to, and which one it is."""
    names = BATCH_MATES.get(tag, (image,))
    batch = [preprocessing.load(goldens.image_path(name), own.input_step) for name in names]
    sizes = [loaded.padded_size for loaded in batch]
    size = tuple(max(side) for side in zip(*sizes, strict=True))
    return batch, size, names.index(image)


def plus_four_for_the_background(model, monkeypatch):
    """The change of the weights for ``max36.background_plus4``."""
    predictor = support.tiny_model(model).roi_heads.box_predictor
    bias = predictor.cls_score.bias.clone()
    bias[-1] += 4
    monkeypatch.setitem(predictor.cls_score._parameters, "bias", torch.nn.Parameter(bias))
