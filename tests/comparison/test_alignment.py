"""Pairing names and boxes, and conventions of boxes."""

import numpy as np
import pytest
from comparison_stores import images, result, rows

from vmb_d2.comparison.alignment import (
    Convention,
    align,
    box_pair,
    greedy_pairs,
    in_original_pixels,
    overlaps,
)
from vmb_d2.comparison.names import pair_names, spread

A = images()


def naive_overlap(a, b):
    """Of two inclusive boxes, counted in pixels."""
    width = min(a[2], b[2]) - max(a[0], b[0]) + 1
    height = min(a[3], b[3]) - max(a[1], b[1]) + 1
    common = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (a, b)]
    return common / (sum(areas) - common)


def naive_pairs(iou, least):
    """One best pair after another."""
    pairs, iou = [], iou.copy()
    while iou.size and iou.max() >= least:
        row, column = np.unravel_index(iou.argmax(), iou.shape)
        pairs.append((row, column))
        iou[row], iou[:, column] = -1, -1
    return sorted(pairs)


def test_overlaps_of_inclusive_boxes():
    rng = np.random.default_rng(0)
    a, b = (rng.integers(0, 30, (n, 2)) for n in (20, 25))
    a, b = (np.concatenate([x, x + rng.integers(0, 20, x.shape)], axis=1) * 1.0 for x in (a, b))
    found = overlaps(a, b)
    expected = [[naive_overlap(x, y) for y in b] for x in a]
    assert np.allclose(found, expected, rtol=1e-12)
    assert overlaps(a, np.full((1, 4), np.nan)).max() == 0
    assert overlaps(a[:0], b).shape == (0, 25)


@pytest.mark.parametrize("levels", [4, 10**6])
@pytest.mark.parametrize("shape", [(30, 30), (40, 15), (0, 5)])
def test_greedy_pairs_are_those_of_the_naive_loop(shape, levels):
    """With many equal overlaps (few levels) too."""
    rng = np.random.default_rng(levels)
    for least in (0.01, 0.5, 0.9):
        iou = rng.integers(0, levels + 1, shape) / levels
        found = list(zip(*greedy_pairs(iou, least), strict=True))
        assert found == naive_pairs(iou, least)


@pytest.mark.parametrize(
    ("a", "b", "rule"),
    [
        (["x_1", "x_2"], ["x_2", "x_1"], "the whole name"),
        (["d/x_1.jpg", "d/x_2.png"], ["d/x_2", "d/x_1"], "the name up to its first dot"),
        (["a/one.jpg", "b/two"], ["two", "c/one"], "the file name without folders, up to"),
        (["COCO_val2014_000000000042", "COCO_val2014_000000000007"], ["7", "42"], "the integer"),
        (["000123.jpg", "000045.jpg"], ["123", "45"], "the integer after the last underscore"),
    ],
)
def test_names_are_paired(a, b, rule):
    for first, second in ((a, b), (b, a)):
        paired = pair_names(first, second)
        assert paired.rule.startswith(rule)
        assert [name for name, _ in paired.pairs] == first
        assert {name for _, name in paired.pairs} == set(second)
        assert (paired.only_a, paired.only_b) == ([], [])


@pytest.mark.parametrize(
    ("a", "b", "pairs"),
    [
        # What the whole names leave over is missing, though a laxer rule would pair it.
        (["a_1", "a_2", "b_3"], ["a_1", "a_2", "c_3"], [("a_1", "a_1"), ("a_2", "a_2")]),
        ([f"x_{i}" for i in range(100)], ["x_5", "y_7"], [("x_5", "x_5")]),
        # One whole name is in both by chance.
        (["1", "x_2", "x_3"], ["1", "2", "3"], [("1", "1"), ("x_2", "2"), ("x_3", "3")]),
        (["a", "b"], ["c"], []),
        ([], [], []),
    ],
)
def test_one_rule_holds_for_all_names(a, b, pairs):
    paired = pair_names(a, b)
    assert paired.pairs == pairs
    assert paired.only_a == [name for name in a if name not in dict(pairs)]
    assert paired.only_b == [name for name in b if name not in dict(pairs).values()]


def test_ambiguous_names_are_left_out():
    paired = pair_names(["train_1", "val_1", "val_2", "val_3"], ["1", "2", "3"])
    assert paired.pairs == [("val_2", "2"), ("val_3", "3")]
    assert (paired.only_a, paired.only_b) == (["train_1", "val_1"], ["1"])


def test_a_limit_is_spread_over_the_sorted_names_in_the_order_of_reading():
    pairs = [(f"{i:02}", "") for i in reversed(range(10))]
    assert [a for a, _ in spread(pairs, 5)] == ["08", "06", "04", "02", "00"]
    assert [a for a, _ in spread(pairs, 3)] == ["06", "03", "00"]
    assert spread(pairs, 10) == spread(pairs, 99) == spread(pairs, None) == pairs
    found = result(A, images(4), limit=2)
    assert found["images"]["compared"] == 2
    assert found["images"]["common"] == 4
    assert found["a"]["only_here"]["count"] == 2


@pytest.mark.parametrize("unit", ["original", "network", "normalised"])
@pytest.mark.parametrize("layout", ["xyxy", "xywh", "yxyx"])
@pytest.mark.parametrize("exclusive", [False, True])
def test_conventions_of_boxes(unit, layout, exclusive):
    """An image of 600 x 400 has scale 2."""
    boxes = np.array([[10.0, 20, 110, 80], [0, 0, 30, 30]])
    factor = 2 if unit == "network" else 1
    written = boxes * factor + [0, 0, exclusive, exclusive]
    if unit == "normalised":
        written /= [600, 400, 600, 400]
    if layout == "xywh":
        written[:, 2:] -= written[:, :2]
    elif layout == "yxyx":
        written = written[:, [1, 0, 3, 2]]
    convention = Convention(layout, unit, exclusive)
    found = in_original_pixels(written, convention, (400, 600))
    assert found == pytest.approx(boxes, abs=1e-12)


def test_matched_rows():
    a, order = A["image_0"], np.random.default_rng(0).permutation(40)[:30]
    alignment = align(box_pair(a, rows(a, order)), (Convention(),) * 2, 0.9)
    rows_a, rows_b = alignment.rows
    assert np.array_equal(order[rows_b], rows_a)
    assert sorted(rows_a) == sorted(order)
    assert alignment.distances.max() == 0
