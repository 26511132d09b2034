"""The choice of regions against the original's loop over classes."""

from unittest import mock

import naive
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vmb_d2.errors import ConfigError
from vmb_d2.selection import most_confident as selection
from vmb_d2.selection.most_confident import select_adaptively, select_regions
from vmb_d2.selection.options import RegionOptions
from vmb_d2.structures import box_geometry


def check(selection, confidence, num_features):
    """The selection against the confidences of all regions."""
    expected = sorted(range(len(confidence)), key=lambda i: -confidence[i])[:num_features]
    assert selection.indices.tolist() == expected
    assert selection.confidences.tolist() == [confidence[i] for i in expected]
    assert selection.num_boxes == sum(confidence[i] > 0 for i in expected)


@given(naive.regions(), st.integers(1, 20), st.sampled_from([0.0, 0.25, 0.5]))
@settings(max_examples=400)
def test_selection_equals_the_naive_loop(example, num_features, threshold):
    boxes, scores = example
    selection = select_regions(torch.tensor(boxes), torch.tensor(scores), num_features, threshold)
    check(selection, naive.confidences(boxes, scores, threshold), num_features)


def random_boxes(rng, count, width, sides):
    corners = rng.integers(0, width, (count, 2))
    return np.concatenate([corners, corners + rng.integers(*sides, (count, 2))], axis=1) / 1.0


@given(
    st.integers(0, 2**32),
    st.sampled_from([8, 30, 150]),
    st.sampled_from([2, 5, 1000]),
    st.sampled_from([1, 3, 10, 30]),
)
@settings(max_examples=40)
def test_selection_of_some_more_regions(seed, width, values, num_features):
    """From crowded to loose, from many ties to none, from one step to all of them."""
    rng = np.random.default_rng(seed)
    boxes = random_boxes(rng, 40, width, (10, 20))
    scores = (rng.integers(0, values, (40, 11)) / 1024).tolist()
    selection = select_regions(torch.tensor(boxes).float(), torch.tensor(scores), num_features)
    check(selection, naive.confidences(boxes.tolist(), scores, 0.0), num_features)


def test_selection_among_many_nearly_equal_classes():
    """The flat distribution of an untrained or unsure model: every class orders the boxes anew."""
    rng = np.random.default_rng(0)
    boxes = random_boxes(rng, 60, 80, (5, 40))
    scores = torch.tensor(rng.normal(0, 1e-3, (60, 40)), dtype=torch.float32).softmax(dim=1)
    confidence = naive.confidences(boxes.tolist(), scores.tolist(), 0.0)
    for num_features in (5, 60):
        selection = select_regions(torch.tensor(boxes).float(), scores, num_features)
        check(selection, confidence, num_features)


REGIONS, CLASSES = 1000, 1600


def peaked(logits):
    logits[np.arange(REGIONS), np.arange(REGIONS) % 37] += 12
    return logits


def one_class_leads(logits):
    logits[:, 7] += 12
    return logits


def one_region_leads(logits):
    logits[REGIONS // 2] += np.where(np.arange(CLASSES + 1) < CLASSES, 5, 0)
    return logits / 1000


# How logits, which are normally distributed at first, become those of a kind of model. The last
# one is the background's.
DISTRIBUTIONS = {
    "flat": lambda logits: logits / 1000,
    "flat, the background varies": lambda logits: logits * ([1e-3] * CLASSES + [2]),
    "peaked": peaked,
    "one class leads": one_class_leads,
    "one region leads": one_region_leads,
    "equal": lambda logits: logits * 0,
}


@pytest.mark.parametrize("sides", [(20, 200), (600, 700)], ids=["loose", "all overlap"])
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_selection_at_the_size_of_a_model(distribution, sides):
    rng = np.random.default_rng(0)
    boxes = torch.tensor(random_boxes(rng, REGIONS, 1000 if sides[0] < 100 else 60, sides)).float()
    logits = DISTRIBUTIONS[distribution](rng.standard_normal((REGIONS, CLASSES + 1)))
    scores = torch.tensor(logits, dtype=torch.float32).softmax(dim=1)[:, :CLASSES]
    overlapping = box_geometry.overlapping(boxes, 0.5)
    assert overlapping.all(dim=1).sum() == 0
    assert (overlapping.sum() == REGIONS * (REGIONS - 1)) == (sides[0] > 100)
    confidence = naive.confidences_of_many(overlapping.tolist(), scores.tolist(), 0.0)
    check(select_regions(boxes, scores, 100), confidence, 100)


def numbers_looked_at(boxes, scores, num_features, threshold=0.0):
    """Of how many regions the best scores are taken, step by step."""
    with mock.patch.object(selection, "_confidences", wraps=selection._confidences) as looked:
        found = selection.select_regions(boxes, scores, num_features, threshold)
    confidence = naive.confidences(boxes.tolist(), scores.tolist(), threshold)
    check(found, confidence, num_features)
    return [call.args[-1] for call in looked.call_args_list]


def test_steps():
    """No more scores are looked at than it takes, in the end all."""
    apart = torch.arange(40.0)[:, None] * 20 + torch.tensor([0.0, 0.0, 9.0, 9.0])
    falling = torch.linspace(0.9, 0.1, 40)[:, None]
    assert numbers_looked_at(apart, falling, 5) == [10]
    assert numbers_looked_at(apart, falling, 30) == [60]
    in_one_place = apart.clone()
    in_one_place[:3] = in_one_place[0]
    assert numbers_looked_at(in_one_place, falling, 2) == [4]  # the fourth, too
    in_one_place[:20] = in_one_place[0]  # the first of them and the 4 after them are confident
    assert numbers_looked_at(in_one_place, falling, 4) == [8, 16, 32]
    assert numbers_looked_at(in_one_place, falling, 25) == [50]
    in_one_place[:] = in_one_place[0]
    assert numbers_looked_at(in_one_place, falling, 5) == [10, 20, 40]
    assert numbers_looked_at(in_one_place, falling, 6) == [12, 24, 48]
    # Nothing is gained beyond the 21 regions above the threshold.
    assert numbers_looked_at(in_one_place, falling, 6, threshold=0.49) == [12, 24]


def test_no_score_is_left_out_of_the_last_step():
    """Region 2 is confident by a score below the best of all regions looked at."""
    in_one_place = torch.tensor([[0.0, 0.0, 9.0, 9.0]] * 4)
    scores = torch.tensor([[0.9, 0.05], [0.8, 0.05], [0.7, 0.1], [0.6, 0.05]])
    assert numbers_looked_at(in_one_place, scores, 2) == [4]


def test_ties_at_the_bound():
    """Of equal scores, those of the first regions are looked at, and suffice."""
    apart = torch.arange(40.0)[:, None] * 20 + torch.tensor([0.0, 0.0, 9.0, 9.0])
    assert numbers_looked_at(apart, torch.full((40, 3), 0.25), 5) == [10]
    in_pairs = apart[torch.arange(40) // 2]
    assert numbers_looked_at(in_pairs, torch.full((40, 3), 0.25), 5) == [10]


def test_ties_beyond_the_bound_are_left_out():
    """Region 3 is among the first, and so would be its tie with region 2, which isn't."""
    x = torch.tensor([0.0, 0.0, 6.0, 3.0, 0.0])  # 2 overlaps 3 alone, the others overlap 3
    boxes = torch.stack([x, x * 0, x + 9, x * 0 + 9], dim=1)
    scores = [[0.9, 0.0, 0.6], [0.0, 0.0, 0.5], [0.0, 0.5, 0.0], [0.8, 0.5, 0.0], [0.7, 0.0, 0.0]]
    assert numbers_looked_at(boxes, torch.tensor(scores), 2) == [4, 8]
    assert select_regions(boxes, torch.tensor(scores), 2).indices.tolist() == [0, 2]


def test_threshold_has_to_be_exceeded():
    boxes = torch.tensor([[0.0, 0.0, 9.0, 9.0], [50.0, 50.0, 59.0, 59.0]])
    selection = select_regions(boxes, torch.tensor([[0.5], [0.75]]), 2, threshold=0.5)
    assert selection.indices.tolist() == [1, 0]
    assert selection.num_boxes == 1


def test_suppressed_boxes_fill_up_in_the_order_given():
    boxes = torch.tensor([[0.0, 0.0, 9.0, 9.0]] * 4)
    selection = select_regions(boxes, torch.tensor([[0.1], [0.4], [0.3], [0.2]]), 4)
    assert selection.indices.tolist() == [1, 0, 2, 3]
    assert selection.num_boxes == 1


def test_no_regions():
    selection = select_regions(torch.zeros(0, 4), torch.zeros(0, 7), 10)
    assert selection.indices.tolist() == []
    assert selection.num_boxes == 0


@given(naive.regions(), st.integers(0, 6), st.integers(1, 8), st.sampled_from([0.0, 0.25, 0.5]))
def test_the_adaptive_number_is_that_of_bottom_up_attention(example, least, more, threshold):
    """Its rule, as its extractor has it: those above the threshold, but 10 to 100 of them."""
    boxes, scores = torch.tensor(example[0]), torch.tensor(example[1])
    found = select_adaptively(boxes, scores, least, least + more, threshold)
    confidence = naive.confidences(example[0], example[1], 0.0)
    order = sorted(range(len(boxes)), key=lambda i: -confidence[i])
    kept = [i for i in order if confidence[i] > threshold]
    if len(kept) < least:
        kept = order[:least]
    elif len(kept) > least + more:
        kept = order[: least + more]
    assert found.indices.tolist() == kept
    assert found.confidences.tolist() == [confidence[i] for i in kept]
    assert found.num_boxes == sum(confidence[i] > 0 for i in kept)


def test_options_choose_between_the_two():
    boxes = torch.tensor([[0.0, 0.0, 9.0, 9.0], [50.0, 50.0, 59.0, 59.0], [80.0, 0.0, 89.0, 9.0]])
    scores = torch.tensor([[0.5], [0.75], [0.1]])

    def kept(**options):
        return RegionOptions(**options).select(boxes, scores).indices.tolist()

    assert kept(num_features=2) == [1, 0]
    assert kept(min_features=0, max_features=2, confidence_threshold=0.6) == [1]
    assert kept(min_features=2, confidence_threshold=0.6) == [1, 0]
    assert kept(max_features=100, confidence_threshold=0.6) == [1, 0, 2]  # at least 10
    assert RegionOptions(max_features=50).bounds == (10, 50)
    assert RegionOptions(min_features=3).bounds == (3, 100)
    assert RegionOptions(num_features=7).most_regions == 7
    assert RegionOptions(num_features=7, max_features=50).most_regions == 50


@pytest.mark.parametrize(
    "options",
    [
        {"num_features": 0},
        {"confidence_threshold": 1.0},
        {"confidence_threshold": -0.1},
        {"min_features": -1},
        {"max_features": 0, "min_features": 0},
        {"max_features": 9},
        {"min_features": 101},
    ],
)
def test_options_out_of_range(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        RegionOptions(**options)


def test_options_choose_features():
    valid = ("fc6", "fc7")
    assert RegionOptions().choose_features(valid) == ("fc6",)
    assert RegionOptions(["fc7", "fc6", "fc7"]).choose_features(valid) == ("fc7", "fc6")
    with pytest.raises(ConfigError, match=r"extract\.feature_name=fc8: this model has fc6, fc7"):
        RegionOptions(["fc6", "fc8"]).choose_features(valid)
