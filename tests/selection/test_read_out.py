"""What is kept of the regions of a batch: for each image what is kept of it alone."""

import functools

import pytest
import support
import torch

from reference import goldens
from vmb_d2.config.read_out import MMF_READ_OUT
from vmb_d2.data import preprocessing as images
from vmb_d2.extractor import RegionFeatureExtractor
from vmb_d2.modeling import NetworkOutput
from vmb_d2.selection.choice import Candidates, choose
from vmb_d2.selection.options import RegionOptions
from vmb_d2.selection.read_out import chosen_regions, given_regions

NAMES = ("coffee.png", "horse.png", "rocket.jpg")
OPTIONS = {
    "100": {},
    "7, background": {"num_features": 7, "background": True},
    "all": {"num_features": 1000, "confidence_threshold": 0.12},  # the rest fills up
    "adaptive": {"min_features": 5, "max_features": 90, "confidence_threshold": 0.6},
}


@functools.cache
def batch(model):
    """A model's regions of three images that went through it together, and these."""
    loaded = [images.load(goldens.image_path(name)) for name in NAMES]
    size = tuple(map(max, zip(*(image.padded_size for image in loaded), strict=True)))
    extractor = RegionFeatureExtractor(
        support.tiny_model(model), RegionOptions(support.tiny_model(model).feature_names)
    )
    output = extractor.network(extractor.to_network(loaded, size))
    return output.regions, loaded, extractor.feature_names


def chosen(model, regions, loaded, names, options):
    rule, output = options.rule(MMF_READ_OUT), NetworkOutput(regions, {})
    network = support.tiny_model(model)
    return chosen_regions(network, output, loaded, names, rule, options.background)


def given(model, regions, loaded, boxes, names, background):
    output = NetworkOutput(regions, {})
    return given_regions(support.tiny_model(model), output, loaded, boxes, names, background)


def assert_same(found, expected, names):
    """Every field is equal, and so are all features."""
    for name in names:
        support.assert_same_regions(found.with_feature(name), expected.with_feature(name))
    assert list(found.further) == list(expected.further) == list(names[1:])


def boxes_of(regions):
    """Given boxes: as many as there are regions, but none of the second image."""
    return [torch.rand(len(r), 4) for r in regions]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "options"),
    [
        *((model, "100") for model in support.TINY_MODELS),
        *((support.TINY_FPN, options) for options in list(OPTIONS)[1:]),
    ],
)
def test_chosen_regions_are_those_of_each_image_alone(model, options):
    regions, loaded, names = batch(model)
    options = RegionOptions(**OPTIONS[options])
    found = chosen(model, regions, loaded, names, options)
    for own, image, result in zip(regions, loaded, found, strict=True):
        (alone,) = chosen(model, [own], [image], names, options)
        assert_same(result, alone, names)
    assert len({result.features.tobytes() for result in found}) == len(NAMES)
    assert chosen(model, [], [], names, options) == []


def test_rows_belong_together():
    """Box, features, probabilities and class of a region are those that the network gave it."""
    regions, loaded, names = batch(support.TINY_FPN)
    found = chosen(support.TINY_FPN, regions, loaded, names, RegionOptions(num_features=20))
    for own, image, result in zip(regions, loaded, found, strict=True):
        boxes = own.proposal_boxes.tensor / image.scales[0]
        scores = own.class_logits.softmax(dim=1)[:, :-1]
        rule = RegionOptions(num_features=20).rule(MMF_READ_OUT)
        ((rows, confidences, _, _),) = choose([Candidates(boxes, scores, 1.0)], rule)
        assert torch.equal(torch.from_numpy(result.confidence), confidences)
        assert rows.tolist() != sorted(rows.tolist())  # the most confident first
        assert torch.equal(torch.from_numpy(result.bbox), boxes[rows])
        probabilities = scores[rows]
        assert torch.equal(torch.from_numpy(result.cls_prob), probabilities)
        assert result.objects.tolist() == probabilities.argmax(dim=1).tolist()
        assert torch.equal(torch.from_numpy(result.features), own.get("fc6")[rows])
        assert torch.equal(torch.from_numpy(result.further["fc7"]), own.get("fc7")[rows])
        assert list(result.further) == ["fc7"]
        assert (result.image_width, result.image_height) == (image.width, image.height)


@pytest.mark.parametrize("background", [False, True])
def test_given_regions_are_all_of_each_image(background):
    regions, loaded, names = batch(support.TINY_FPN)
    regions = [regions[0], regions[1][:0], regions[2]]
    boxes = boxes_of(regions)
    found = given(support.TINY_FPN, regions, loaded, boxes, names, background)
    for own, image, own_boxes, result in zip(regions, loaded, boxes, found, strict=True):
        (alone,) = given(support.TINY_FPN, [own], [image], [own_boxes], names, background)
        assert_same(result, alone, names)
        assert torch.equal(torch.from_numpy(result.bbox), own_boxes)
        assert torch.equal(torch.from_numpy(result.features), own.get("fc6"))
        assert torch.equal(torch.from_numpy(result.class_logits[:, 1:]), own.class_logits[:, :-1])
        probabilities = own.class_logits.softmax(dim=1).roll(1, dims=1)[:, 0 if background else 1 :]
        assert torch.equal(torch.from_numpy(result.cls_prob), probabilities)
        assert result.num_boxes == len(own_boxes)
        assert result.confidence is None
    assert given(support.TINY_FPN, [], [], [], names, background) == []


@pytest.mark.parametrize(
    ("model", "read_out"), [("tiny_vinvl", "vinvl_reg"), ("tiny_frcnn_vg", "airsplay_notebook")]
)
def test_an_image_of_which_no_region_is_chosen(model, read_out):
    options = RegionOptions(read_out=read_out, min_features=0, confidence_threshold=0.999)
    network, description = support.tiny_model(model), support.description(model)
    description = description.with_input({"short_side": 200})
    extractor = RegionFeatureExtractor(network, options, description)
    found = extractor.extract(goldens.image_path("coffee.png"))
    assert found.bbox.shape == (0, 4)
    assert found.features.shape == (0, network.feature_dimension)
    assert found.num_boxes == len(found.attribute_ids) == 0
