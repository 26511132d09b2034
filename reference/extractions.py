"""How each golden's regions are extracted again."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from vmb_d2.config import VMBModel
from vmb_d2.data import preprocessing
from vmb_d2.data.preprocessing import NetworkImage
from vmb_d2.extractor import RegionFeatureExtractor
from vmb_d2.modeling import VMBRCNN
from vmb_d2.selection.options import RegionOptions
from vmb_d2.structures.regions import RegionFeatures

from .goldens import image_path

# model -> tag -> options of the extraction, and of the input
OPTIONS: dict[str, dict[str, dict[str, Any]]] = {
    "x152": {"bs1": {}},
    "x101": {"bs1": {}},
    "r101_c4": {"bs1": {}},
    "x152_c4": {"bs1": {}},
    "vinvl": {
        "readme": {},
        "reg": {"read_out": "vinvl_reg"},
        "demo": {"read_out": "vinvl_reg"},
    },
    "frcnn_vg": {"max36": {}, "min10max100": {"min_features": 10, "max_features": 100}},
    "bua_caffe_r101": {"max36": {"num_features": 36}, "min10max100": {}},
    "tiny_x152_fpn": {
        "bs1": {},
        "bs2": {},
        "background": {"background": True},
        "conf0.3": {"confidence_threshold": 0.3},
        "conf0.6": {"confidence_threshold": 0.6},
        "num36": {"num_features": 36},
        "fc7": {"feature_names": ["fc7"]},
        "given_boxes": {},
    },
    "tiny_r101_c4": {"bs1": {}},
    "tiny_x152_c4": {"bs1": {}},
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
# tags whose goldens were made with one of the weights changed
OTHER_WEIGHTS = ("max36.background_plus4",)
# tag -> the images of the golden's batch
BATCH_MATES = {
    "bs2": ("coffee.png", "horse.png"),
    "readme_bs2": ("chelsea.png", "coffee.png"),
    "max36.bs2": ("camera.png", "coffee.png"),
}
INPUT = ("short_side", "long_side", "resize", "channel_order")


def extractor(
    network: VMBRCNN, description: VMBModel, model: str, tag: str, **input_changes: Any
) -> RegionFeatureExtractor:
    """An extractor with the options of a golden.

    Args:
        network: with the golden's weights.
        description: of the network.
        model: the network's name in :data:`OPTIONS`.
        tag: the golden's.
        **input_changes: see :meth:`RegionFeatureExtractor.from_pretrained`; beside the golden's.
    """
    options = dict(OPTIONS[model][tag])
    step = {name: options.pop(name) for name in INPUT if name in options} | input_changes
    return RegionFeatureExtractor(network, RegionOptions(**options), description.with_input(step))


def batch_of(
    own: RegionFeatureExtractor, tag: str, image: str
) -> tuple[list[NetworkImage], tuple[int, int], int]:
    """A golden's images preprocessed, the size they are padded to, and which of them it is of.

    Args:
        own: with the golden's options.
        tag, image: see :func:`reference.goldens.find`.
    """
    names = BATCH_MATES.get(tag, (image,))
    batch = [preprocessing.load(image_path(name), own.input_step) for name in names]
    heights, widths = zip(*(loaded.padded_size for loaded in batch), strict=True)
    return batch, (max(heights), max(widths)), names.index(image)


def regions(
    own: RegionFeatureExtractor, golden: Mapping[str, np.ndarray], tag: str, image: str
) -> RegionFeatures:
    """What an extractor gives for a golden's image, in the golden's batch, of its boxes if given.

    Args:
        own, tag, image: see :func:`batch_of`.
        golden: loaded.
    """
    batch, size, row = batch_of(own, tag, image)
    boxes = None
    if tag == "given_boxes":
        boxes = [torch.from_numpy(golden["given_boxes" if "given_boxes" in golden else "boxes"])]
    return own.extract_batch(batch, size, boxes)[row]
