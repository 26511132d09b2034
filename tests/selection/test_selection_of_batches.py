"""The choice of regions for several images at once is that for each of them."""

from unittest import mock

import naive
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vmb_d2.selection import most_confident as selection
from vmb_d2.selection.most_confident import (
    select_adaptively,
    select_adaptively_of_each,
    select_regions,
    select_regions_of_each,
    suppression,
)
from vmb_d2.selection.options import RegionOptions


@st.composite
def batches(draw):
    """Boxes and scores, with many equal values, of images of which some have no regions."""
    classes = draw(st.integers(1, 5))
    score = st.integers(0, 6).map(lambda n: n / 8)
    row = st.lists(score, min_size=classes, max_size=classes)
    all_boxes, all_scores = [], []
    for _ in range(draw(st.integers(0, 5))):
        kind = draw(st.sampled_from([naive.any_box, naive.crowded_box]))
        boxes = draw(st.lists(kind, max_size=draw(st.sampled_from([0, 3, 14]))))
        scores = draw(st.lists(row, min_size=len(boxes), max_size=len(boxes)))
        all_boxes.append(torch.tensor(boxes).reshape(-1, 4))
        all_scores.append(torch.tensor(scores).reshape(-1, classes))
    return all_boxes, all_scores


def check(found, expected):
    assert len(found) == len(expected)
    for of_batch, alone in zip(found, expected, strict=True):
        assert of_batch.indices.dtype == torch.int64
        assert of_batch.indices.tolist() == alone.indices.tolist()
        assert of_batch.confidences.dtype == alone.confidences.dtype == torch.float32
        assert torch.equal(of_batch.confidences, alone.confidences)
        assert type(of_batch.num_boxes) is int
        assert of_batch.num_boxes == alone.num_boxes


numbers = st.sampled_from([1, 200, 2**22])  # one image at a time, some, all
thresholds = st.sampled_from([0.0, 0.25, 0.5])


@given(batches(), st.integers(1, 16), thresholds, numbers)
@settings(max_examples=400)
def test_each_image_gets_what_it_gets_alone(batch, num_features, threshold, at_once):
    with mock.patch.object(selection, "NUMBERS", at_once):
        found = select_regions_of_each(*batch, num_features, threshold)
    pairs = zip(*batch, strict=True)
    check(found, [select_regions(*pair, num_features, threshold) for pair in pairs])


@given(batches(), st.integers(0, 6), st.integers(1, 8), thresholds)
def test_an_adaptive_number_is_each_images_own(batch, least, more, threshold):
    options = least, least + more, threshold
    found = select_adaptively_of_each(*batch, *options)
    check(found, [select_adaptively(*pair, *options) for pair in zip(*batch, strict=True)])


@pytest.mark.parametrize(
    "options",
    [
        {"num_features": 2, "confidence_threshold": 0.25},
        {"min_features": 1, "max_features": 3, "confidence_threshold": 0.25},
    ],
    ids=str,
)
@given(batch=batches())
def test_options_choose_for_a_batch_as_for_an_image(options, batch):
    options = RegionOptions(**options)
    pairs = zip(*batch, strict=True)
    check(options.select_of_each(*batch), [options.select(*pair) for pair in pairs])


def in_one_place(count):
    """Boxes of which all but the best are suppressed, and their falling scores in one class."""
    boxes = torch.tensor([[0.0, 0.0, 9.0, 9.0]] * count)
    return boxes, torch.linspace(0.9, 0.1, count)[:, None]


def apart(count):
    boxes, scores = in_one_place(count)
    return boxes + 20 * torch.arange(count)[:, None], scores


def looked_at(images, num_features, at_once=2**22, threshold=0.0):
    """How many images are looked at together and how many regions of each, step by step."""
    boxes, scores = zip(*images, strict=True)
    with (
        mock.patch.object(selection, "NUMBERS", at_once),
        mock.patch.object(selection, "_confidences", wraps=selection._confidences) as looked,
    ):
        found = select_regions_of_each(boxes, scores, num_features, threshold)
    check(found, [select_regions(*image, num_features, threshold) for image in images])
    return [(len(call.args[0]), call.args[-1]) for call in looked.call_args_list]


def test_only_the_images_that_need_it_are_looked_at_again():
    assert looked_at([apart(40), apart(30)], 5) == [(2, 10)]
    images = [apart(40), in_one_place(40), apart(40), in_one_place(15)]
    assert looked_at(images, 5) == [(4, 10), (2, 20), (1, 40)]
    # No region has a score above the threshold.
    boxes, scores = apart(40)
    assert looked_at([(boxes, scores * 0), apart(40)], 5) == [(1, 10)]
    assert looked_at([(boxes, scores * 0)], 5) == []


def test_a_large_batch_is_worked_on_in_parts():
    """By the regions looked at, 10 and then 20, times themselves or the classes."""
    images = [apart(40)] * 5
    assert looked_at(images, 5, at_once=250) == [(2, 10), (2, 10), (1, 10)]
    assert looked_at(images, 5, at_once=99) == [(1, 10)] * 5
    images = [in_one_place(15)] * 4  # all 15 of them in the second step
    assert looked_at(images, 5, at_once=450) == [(4, 10), (2, 20), (2, 20)]
    wide = [(boxes, scores.expand(-1, 30)) for boxes, scores in [apart(40)] * 4]
    assert looked_at(wide, 5, at_once=600) == [(2, 10), (2, 10)]


def test_a_score_below_the_threshold_never_counts():
    """Neither next to an image some of whose scores are left out. Region 1 has another of 0.2."""
    boxes, scores = in_one_place(2)[0], torch.tensor([[0.9, 0.0], [0.8, 0.2]])
    many, falling = apart(40)
    images = [(boxes, scores), (many, falling.expand(-1, 2))]
    assert looked_at(images, 5, threshold=0.25) == [(2, 10)]
    few, _ = select_regions_of_each(*zip(*images, strict=True), 5, 0.25)
    assert few.confidences.tolist() == pytest.approx([0.9, 0])


def test_what_fills_up_is_no_candidate_and_overlaps_nothing():
    """Or it would be worked on, and could pass for regions that overlap too many others."""
    images = [in_one_place(3), in_one_place(10)]
    with mock.patch.object(suppression, "survivors", wraps=suppression.survivors) as survivors:
        select_regions_of_each(*zip(*images, strict=True), 10, threshold=-1.0)
    _, candidates, overlapping = survivors.call_args.args
    assert candidates.sum(dim=(1, 2)).tolist() == [3, 10]
    assert overlapping.sum(dim=(1, 2)).tolist() == [3 * 2, 10 * 9]


def test_images_of_a_model_are_one_part():
    """With 100 regions each, of which twice as many are looked at, and 1600 classes."""
    images = list(range(9))
    assert list(selection._parts(images, 200, 1600)) == [images]
    assert len(list(selection._parts(images, 1000, 1600))) == 9


def test_scores_that_are_no_numbers_are_nobodys_confidence():
    """Neither is the region that they are of confident, nor do they touch any other."""
    boxes, scores = apart(12)
    broken = scores.clone()
    broken[[2, 5]] = torch.nan
    first, second = select_regions_of_each([boxes, boxes], [broken, scores], 3)
    assert first.indices.tolist() == [0, 1, 3]
    assert second.indices.tolist() == [0, 1, 2]
    (all_of_them,) = select_regions_of_each([boxes], [broken], 12)
    assert all_of_them.num_boxes == 10
    nothing = torch.full_like(scores, torch.nan)
    first, second = select_regions_of_each([boxes, boxes], [nothing, scores], 3)
    assert (first.indices.tolist(), first.num_boxes) == ([0, 1, 2], 0)
    assert second.indices.tolist() == [0, 1, 2]
