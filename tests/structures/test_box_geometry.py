"""Box geometry and coding against naive loops, and NMS by its properties."""

import math

import naive
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vmb_d2.modeling import ConventionBox2BoxTransform
from vmb_d2.structures import box_geometry
from vmb_d2.structures.box_geometry import VMB

boxes = st.lists(naive.any_box, min_size=1, max_size=24)
threshold = st.sampled_from([0.25, 0.3, 0.5, 0.7])


def scored(box_lists):
    """Boxes with as many scores, of few values, so that some are equal."""
    score = st.integers(1, 9).map(lambda n: n / 10)
    return box_lists.flatmap(
        lambda b: st.tuples(st.just(b), st.lists(score, min_size=len(b), max_size=len(b)))
    )


@given(boxes)
def test_exclusive_form_and_back(values):
    tensor = torch.tensor(values)
    exclusive = box_geometry.to_exclusive(tensor)
    assert (exclusive[:, 2] - exclusive[:, 0]).tolist() == [naive.width(b) for b in values]
    assert torch.equal(box_geometry.to_inclusive(exclusive), tensor)
    for convention in box_geometry.CONVENTIONS.values():
        same = convention.exclusive(tensor)
        assert torch.equal(same, exclusive if convention.inclusive else tensor)
        assert torch.equal(convention.from_exclusive(same), tensor)


@given(boxes, st.tuples(st.integers(1, 60), st.integers(1, 60)))
def test_clip(values, size):
    shifted = [[v - 20 for v in b] for b in values]
    expected = [naive.clip(b, size) for b in shifted]
    assert VMB.clip(torch.tensor(shifted), size).tolist() == expected


@given(boxes, naive.quarters)
def test_has_sides_of(values, min_size):
    expected = [naive.width(b) >= min_size and naive.height(b) >= min_size for b in values]
    assert VMB.has_sides_of(torch.tensor(values), min_size).tolist() == expected


def as_float32(value):
    return float(np.float32(value))


@given(scored(boxes), threshold)
def test_nms_equals_the_naive_loop(example, threshold):
    values, scores = example
    kept = VMB.nms(torch.tensor(values), torch.tensor(scores), threshold)
    rounded = round_overlaps(values)
    assert kept.tolist() == naive.nms_of_overlaps(rounded, scores, as_float32(threshold))


def round_overlaps(values):
    """Overlaps as float32 numbers, in which the original compares them with its threshold."""
    return [[as_float32(naive.iou(a, b)) for b in values] for a in values]


@given(boxes, threshold)
def test_overlapping(values, threshold):
    expected = np.array(round_overlaps(values)) >= as_float32(threshold)
    np.fill_diagonal(expected, False)
    result = VMB.overlapping(torch.tensor(values), threshold)
    assert result.tolist() == expected.tolist()


# Inclusive: 10 x 1 pixels, of which the other covers 5 and 7.
HALF = [[0.0, 0.0, 9.0, 0.0], [0.0, 0.0, 4.0, 0.0]]
SEVEN_TENTHS = [[0.0, 0.0, 9.0, 0.0], [0.0, 0.0, 6.0, 0.0]]


@pytest.mark.parametrize(("pair", "threshold"), [(HALF, 0.5), (SEVEN_TENTHS, 0.7)])
def test_overlap_equal_to_the_threshold_goes_on_the_cpu(pair, threshold):
    scores = torch.tensor([0.9, 0.8])
    assert VMB.nms(torch.tensor(pair), scores, threshold).tolist() == [0]
    assert VMB.overlapping(torch.tensor(pair), threshold)[0, 1]
    just_above = math.nextafter(as_float32(threshold), 1) + 1e-6
    assert VMB.nms(torch.tensor(pair), scores, just_above).tolist() == [0, 1]


def test_overlap_equal_to_the_threshold_stays_on_a_gpu():
    assert VMB._exceeded_at(0.7, torch.device("cuda")) == as_float32(0.7)
    assert VMB._exceeded_at(0.7, torch.device("cpu")) < as_float32(0.7)


def test_nms_of_nothing():
    assert VMB.nms(torch.zeros(0, 4), torch.zeros(0), 0.5).tolist() == []


@given(boxes.map(lambda bs: [[16 * v for v in b] for b in bs]))
def test_fpn_levels(values):
    expected = [naive.fpn_level(b) for b in values]
    assert box_geometry.assign_fpn_levels(torch.tensor(values), 2, 5).tolist() == expected


@pytest.mark.parametrize(
    ("side", "level"),
    [(1, 2), (111, 2), (112, 3), (223, 3), (224, 4), (447, 4), (448, 5), (896, 5), (1333, 5)],
)
def test_fpn_level_changes_at_the_inclusive_side(side, level):
    square = torch.tensor([[10.0, 20.0, 10.0 + side - 1, 20.0 + side - 1]])
    assert box_geometry.assign_fpn_levels(square, 2, 5).item() == level


def test_fpn_level_tolerates_rounding_just_below_a_limit():
    """VMB adds 1e-6 to the ratio of sides; detectron2 adds 1e-8, which is too little here."""
    side = 224 * (1 - 5e-7)
    square = torch.tensor([[0.0, 0.0, side - 1, side - 1]])
    assert 1 - 1e-6 < VMB.sides(square)[0].item() / 224 < 1
    assert box_geometry.assign_fpn_levels(square, 2, 5).item() == 4


delta = st.floats(-6, 6, width=32)
weights = st.sampled_from([(1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0)])


@given(boxes, st.tuples(delta, delta, delta, delta), weights)
def test_decoding(values, deltas, weights):
    transform = ConventionBox2BoxTransform(weights)
    decoded = transform.apply_deltas(torch.tensor([deltas] * len(values)), torch.tensor(values))
    expected = [naive.decode(deltas, b, weights) for b in values]
    np.testing.assert_allclose(decoded.numpy(), expected, rtol=1e-5, atol=1e-3)


def test_decoding_of_several_predictions_a_box():
    transform = ConventionBox2BoxTransform((10.0, 10.0, 5.0, 5.0))
    generator = torch.Generator().manual_seed(0)
    deltas = torch.randn(5, 12, generator=generator)
    anchors = torch.tensor([[0.0, 0.0, 9.0, 19.0]]).repeat(5, 1)
    decoded = transform.apply_deltas(deltas, anchors)
    for k in range(3):
        part = slice(4 * k, 4 * k + 4)
        single = transform.apply_deltas(deltas[:, part].contiguous(), anchors)
        assert torch.equal(decoded[:, part], single)
