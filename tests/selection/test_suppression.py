"""Suppression in many classes against a loop over each."""

import naive
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vmb_d2.selection.suppression import survivors


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


@given(example=problems)
def test_survivors_equal_the_naive_loop(example):
    check(*example)


@pytest.mark.parametrize("regions", [63, 64, 65, 130, 257])
def test_survivors_of_more_regions_than_a_word_has_bits(regions):
    check(*problem(regions, regions, 10, 0.1, 20, 0.7, images=2))
