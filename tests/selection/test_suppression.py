"""Suppression in many classes against a loop over each, in all the ways it is done."""

import contextlib
from unittest import mock

import naive
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vmb_d2.selection import suppression
from vmb_d2.selection.suppression import survivors

# Name -> what to change in the module so that it goes that way, and what it must not call then.
WAYS = {
    "as it is": ({}, None),
    "rounds": ({"MOST_NEIGHBOURS": 255, "MOST_ROUNDS": 1000}, "_by_ranks"),
    "rounds, a class at a time": (
        {"MOST_NEIGHBOURS": 255, "MOST_ROUNDS": 1000, "COMPARISONS": 1},
        "_by_ranks",
    ),
    "ranks": ({"MOST_NEIGHBOURS": -1}, "_by_rounds"),
    "ranks where one round is too few": (
        {"MOST_NEIGHBOURS": 255, "MOST_ROUNDS": 1, "COMPARISONS": 40},
        None,
    ),
}


@contextlib.contextmanager
def going(way):
    changes, never_called = WAYS[way]
    with mock.patch.multiple(suppression, **changes) if changes else contextlib.nullcontext():
        if never_called is None:
            yield
        else:
            with mock.patch.object(suppression, never_called, side_effect=AssertionError):
                yield


def naive_survivors(scores, candidates, overlapping):
    """The greedy loop over the candidates of each class."""
    result = np.zeros(candidates.shape, dtype=bool)
    for c in range(scores.shape[1]):
        regions = np.flatnonzero(candidates[:, c])
        overlaps = overlapping[np.ix_(regions, regions)].astype(int)
        result[regions[naive.nms_of_overlaps(overlaps, scores[regions, c], 1)], c] = True
    return result


def problem(seed, regions, classes, density, values, share, images=1):
    """Any symmetric relation, which needn't be one of boxes, and scores of so many values."""
    rng = np.random.default_rng(seed)
    upper = np.triu(rng.random((images, regions, regions)) < density, 1)
    shape = images, regions, classes
    scores = rng.integers(0, values, shape).astype(np.float32) / values
    return scores, rng.random(shape) < share, upper | upper.transpose(0, 2, 1)


def check(scores, candidates, overlapping):
    given_ = candidates.copy()
    arrays = scores, candidates, overlapping
    found = survivors(*map(torch.from_numpy, arrays))
    assert found.dtype == torch.bool
    expected = [naive_survivors(*image) for image in zip(*arrays, strict=True)]
    np.testing.assert_array_equal(found.numpy(), np.array(expected))
    np.testing.assert_array_equal(candidates, given_)  # not written to


problems = st.builds(
    problem,
    seed=st.integers(0, 2**32),
    regions=st.integers(0, 20),
    classes=st.integers(1, 18),
    density=st.sampled_from([0.0, 0.1, 0.3, 0.8, 1.0]),
    values=st.sampled_from([1, 3, 1000]),
    share=st.sampled_from([0.1, 0.6, 1.0]),
    images=st.integers(1, 4),
)


@pytest.mark.parametrize("way", WAYS)
@given(example=problems)
def test_survivors_equal_the_naive_loop(way, example):
    with going(way):
        check(*example)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("regions", [63, 64, 65, 130])
def test_survivors_of_more_regions_than_a_word_has_bits(way, regions):
    with going(way):
        check(*problem(regions, regions, 10, 0.1, 20, 0.7, images=2))


@pytest.mark.parametrize("way", WAYS)
def test_survivors_in_images_that_are_unlike(way):
    """One where none overlap, one where all do, one without candidates."""
    none = problem(0, 20, 10, density=0.0, values=5, share=1.0)
    all_ = problem(1, 20, 10, density=1.0, values=5, share=0.5)
    empty = problem(2, 20, 10, density=0.5, values=5, share=0.0)
    with going(way):
        check(*map(np.concatenate, zip(none, all_, empty, strict=True)))


@pytest.mark.parametrize(
    ("regions", "way"), [(256, "as it is"), (257, "as it is"), (256, "rounds")]
)
def test_a_region_that_all_others_suppress(regions, way):
    """Sums of bytes: with 256 of them in one, the last region would seem to be free.

    In the second of two images, so that the first alone doesn't decide.
    """
    overlapping = np.zeros((2, regions, regions), dtype=bool)
    overlapping[1, -1, :-1] = overlapping[1, :-1, -1] = True
    everything = np.ones((2, regions, 8), dtype=bool)
    with going(way):
        check(np.full(everything.shape, 0.5, dtype=np.float32), everything, overlapping)


def row_of_regions(length):
    """Each overlaps the next alone; one class; by falling score along the row."""
    overlapping = np.eye(length, k=1, dtype=bool) | np.eye(length, k=-1, dtype=bool)
    scores = np.linspace(1, 0.5, length, dtype=np.float32)[None, :, None]
    return scores, np.ones(scores.shape, dtype=bool), overlapping[None]


def test_a_long_row_is_not_left_to_rounds():
    """Each round decides two regions of it."""
    row = row_of_regions(2 * suppression.MOST_ROUNDS + 1)
    with mock.patch.object(suppression, "_by_ranks", wraps=suppression._by_ranks) as by_ranks:
        check(*row)
    assert by_ranks.call_count == 1
    with mock.patch.object(suppression, "_by_ranks", side_effect=AssertionError):
        check(*row_of_regions(2 * suppression.MOST_ROUNDS))


def test_many_neighbours_are_not_left_to_rounds():
    regions = suppression.MOST_NEIGHBOURS + 2
    with mock.patch.object(suppression, "_by_rounds", side_effect=AssertionError):
        check(*problem(0, regions, 3, 1.0, 1000, 1.0))
    with mock.patch.object(suppression, "_by_ranks", side_effect=AssertionError):
        check(*problem(0, regions - 1, 3, 1.0, 1000, 1.0))


@pytest.mark.parametrize("images", [1, 3])
def test_comparisons_are_done_a_bounded_number_at_a_time(images):
    """As many for each image, so that a batch takes no more pieces than an image alone."""
    one = problem(0, 30, 50, 0.2, 1000, 1.0)
    pairs = int(one[-1].sum()) // 2
    with (
        mock.patch.object(suppression, "COMPARISONS", 7 * pairs + 1),
        mock.patch.object(suppression, "_by_rounds", wraps=suppression._by_rounds) as by_rounds,
    ):
        check(*(np.concatenate([values] * images) for values in one))
    shapes = [call.args[0].shape for call in by_rounds.call_args_list]
    assert shapes == [(images * 30, classes) for classes in [7] * 7 + [1]]


def test_only_classes_with_several_candidates_in_an_image_are_solved():
    scores, _, overlapping = problem(0, 10, 12, 1.0, 1000, 1.0, images=2)
    candidates = np.zeros(scores.shape, dtype=bool)
    candidates[:, 3] = True
    candidates[0, 5, 4:6] = True
    candidates[1, 6, 5:7] = True
    with mock.patch.object(suppression, "_by_rounds", wraps=suppression._by_rounds) as by_rounds:
        check(scores, candidates, overlapping)
    assert by_rounds.call_args.args[0].shape == (20, 3)
