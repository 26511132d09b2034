"""The choice of regions against the original's loop over classes."""

import naive
import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_box_geometry import box

from vmb_d2.selection import confidences, select_regions


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
