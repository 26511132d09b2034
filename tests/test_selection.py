"""The choice of regions against the original's loop over classes."""

import naive
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_box_geometry import box

from vmb_d2.errors import ConfigError
from vmb_d2.options import RegionOptions
from vmb_d2.selection import confidences, select_adaptively, select_regions


@st.composite
def regions(draw):
    """Boxes and class scores with many equal values."""
    boxes = draw(st.lists(box, min_size=1, max_size=14))
    classes = draw(st.integers(1, 5))
    score = st.integers(0, 6).map(lambda n: n / 8)
    row = st.lists(score, min_size=classes, max_size=classes)
    return boxes, draw(st.lists(row, min_size=len(boxes), max_size=len(boxes)))


@given(regions(), st.sampled_from([0.0, 0.25, 0.5]))
@settings(max_examples=200)
def test_confidences_equal_the_naive_loop(example, threshold):
    boxes, scores = example
    result = confidences(torch.tensor(boxes), torch.tensor(scores), threshold)
    assert result.tolist() == naive.confidences(boxes, scores, threshold)


def test_confidences_of_many_nearly_equal_classes():
    """The flat distribution of an untrained or unsure model: every class orders the boxes anew."""
    rng = np.random.default_rng(0)
    corners = rng.integers(0, 80, (60, 2)).astype(np.float32)
    boxes = np.concatenate([corners, corners + rng.integers(5, 40, (60, 2))], axis=1)
    scores = torch.tensor(rng.normal(0, 1e-3, (60, 40)), dtype=torch.float32).softmax(dim=1)
    result = confidences(torch.tensor(boxes, dtype=torch.float32), scores, 0.0)
    assert result.tolist() == naive.confidences(boxes.tolist(), scores.tolist(), 0.0)


@given(regions(), st.integers(1, 20))
def test_selection_is_sorted_stable_and_complete(example, num_features):
    boxes, scores = torch.tensor(example[0]), torch.tensor(example[1])
    selection = select_regions(boxes, scores, num_features)
    confidence = confidences(boxes, scores, 0.0).tolist()
    expected = sorted(range(len(boxes)), key=lambda i: -confidence[i])[:num_features]
    assert selection.indices.tolist() == expected
    assert selection.confidences.tolist() == [confidence[i] for i in expected]
    assert selection.num_boxes == sum(confidence[i] > 0 for i in expected)


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


@given(regions(), st.integers(0, 6), st.integers(1, 8), st.sampled_from([0.0, 0.25, 0.5]))
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
