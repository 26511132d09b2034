"""What is kept of the regions of a batch: for each image what is kept of it alone."""

import functools
from unittest import mock

import pytest
import support
import torch
from waits import Waits

from reference import goldens
from vmb_d2.data import preprocessing as images
from vmb_d2.extractor import RegionFeatureExtractor
from vmb_d2.selection import host, read_out, suppression
from vmb_d2.selection import most_confident as selection
from vmb_d2.selection.most_confident import select_regions
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
    return extractor.network(extractor.to_network(loaded, size)), loaded, extractor.feature_names


def assert_same(found, expected, names):
    """Every field is equal, and so are all features."""
    for name in names:
        support.assert_same_regions(found.with_feature(name), expected.with_feature(name))
    assert list(found.further) == list(expected.further) == list(names[1:])


def boxes_of(regions):
    """Given boxes: as many as there are regions, but none of the second image."""
    return [torch.rand(len(r), 4) for r in regions]


@pytest.mark.parametrize("model", support.TINY_MODELS)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_chosen_regions_are_those_of_each_image_alone(model, options):
    regions, loaded, names = batch(model)
    options = RegionOptions(**options)
    found = chosen_regions(regions, loaded, names, options)
    for own, image, result in zip(regions, loaded, found, strict=True):
        (alone,) = chosen_regions([own], [image], names, options)
        assert_same(result, alone, names)
    assert len({result.features.tobytes() for result in found}) == len(NAMES)
    assert chosen_regions([], [], names, options) == []


def test_rows_belong_together():
    """Box, features, probabilities and class of a region are those that the network gave it."""
    regions, loaded, names = batch(support.TINY_FPN)
    found = chosen_regions(regions, loaded, names, RegionOptions(num_features=20))
    for own, image, result in zip(regions, loaded, found, strict=True):
        boxes = own.proposal_boxes.tensor / image.scale
        scores = own.class_logits.softmax(dim=1)[:, :-1]
        rows, confidences, _ = select_regions(boxes, scores, 20)
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
    found = given_regions(regions, loaded, boxes, names, background)
    for own, image, given, result in zip(regions, loaded, boxes, found, strict=True):
        (alone,) = given_regions([own], [image], [given], names, background)
        assert_same(result, alone, names)
        assert torch.equal(torch.from_numpy(result.bbox), given)
        assert torch.equal(torch.from_numpy(result.features), own.get("fc6"))
        assert torch.equal(torch.from_numpy(result.class_logits[:, 1:]), own.class_logits[:, :-1])
        probabilities = own.class_logits.softmax(dim=1).roll(1, dims=1)[:, 0 if background else 1 :]
        assert torch.equal(torch.from_numpy(result.cls_prob), probabilities)
        assert result.num_boxes == len(given)
        assert result.confidence is None
    assert given_regions([], [], [], names, background) == []


def test_chosen_regions_hold_on_to_no_more_than_themselves():
    """The network's output goes with the batch, and so does each image once it is written."""
    pieces = []

    def to_host(arrays):
        pieces.extend(piece for of_array in arrays for piece in of_array)
        return host.to_host(arrays)

    regions, loaded, names = batch(support.TINY_FPN)
    with mock.patch.object(read_out, "to_host", to_host):
        chosen_regions(regions, loaded, names, RegionOptions())
    assert len(pieces) == len(NAMES) * 7
    for piece in pieces:
        assert piece.is_contiguous()
        assert piece.untyped_storage().nbytes() == piece.nbytes


def waits(function, regions, loaded, *arguments):
    """What a GPU would have to be waited for."""
    with torch.no_grad(), Waits() as waits:

        def to_host(arrays):
            with waits.counted_as("to_host"):
                return host.to_host(arrays)

        with mock.patch.object(read_out, "to_host", to_host):
            function(regions, loaded, *arguments)
    return waits.names


@pytest.mark.parametrize("way", ["rounds", "ranks"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_gpu_is_waited_for_as_often_for_six_images_as_for_one(options, way):
    regions, loaded, names = batch(support.TINY_FPN)
    arguments = names, RegionOptions(**options)
    changes = {"MOST_NEIGHBOURS": -1} if way == "ranks" else {"MOST_ROUNDS": 1000}
    with (
        mock.patch.multiple(suppression, **changes),
        mock.patch.object(selection, "NUMBERS", 2**24),  # all of these images in one part
    ):
        one = waits(chosen_regions, regions[:1], loaded[:1], *arguments)
        assert waits(chosen_regions, regions[:1] * 6, loaded[:1] * 6, *arguments) == one
        several = waits(chosen_regions, regions, loaded, *arguments)
        assert waits(chosen_regions, regions * 2, loaded * 2, *arguments) == several
    assert one.count("to_host") == 1
    assert one.count("nonzero") > 0


def test_given_regions_are_waited_for_once():
    regions, loaded, names = batch(support.TINY_FPN)
    for times in (1, 2):
        arguments = boxes_of(regions) * times, names, False
        assert waits(given_regions, regions * times, loaded * times, *arguments) == ["to_host"]
