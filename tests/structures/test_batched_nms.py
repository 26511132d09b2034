"""Suppression in many sets of boxes against a naive loop over each."""

import naive
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vmb_d2.structures import batched_nms
from vmb_d2.structures.batched_nms import ROUNDS, kept_at_once, kept_in_turn
from vmb_d2.structures.box_geometry import CONVENTIONS

COUNT = 12
OVERLAPS = [float(np.float32(overlap)) for overlap in (0.25, 0.3, 0.5, 0.7)]
box_sets = st.lists(
    st.lists(
        st.tuples(st.one_of(naive.any_box, naive.crowded_box), st.booleans()),
        min_size=COUNT,
        max_size=COUNT,
    ),
    min_size=1,
    max_size=4,
)


def crowd(sets, count, seed=0):
    """Boxes whose corners are whole numbers, so that many overlap by the same, and candidates."""
    random = torch.Generator().manual_seed(seed)
    corners = torch.randint(0, 60, (sets, count, 2), generator=random).float()
    sides = torch.randint(0, 40, (sets, count, 2), generator=random)
    candidates = torch.rand(sets, count, generator=random) < 0.8
    return torch.cat([corners, corners + sides], dim=2), candidates


@given(box_sets, st.sampled_from(sorted(CONVENTIONS)), st.sampled_from([0.25, 0.3, 0.5, 0.7]))
def test_kept_are_those_of_nms(sets, name, threshold):
    """The sets one after the other by their convention's NMS."""
    boxes = torch.tensor([[box for box, _ in own] for own in sets])
    candidates = torch.tensor([[flag for _, flag in own] for own in sets])
    kept = CONVENTIONS[name].kept(boxes, candidates, threshold)
    for own, flags, result in zip(boxes, candidates, kept, strict=True):
        rows = flags.nonzero().squeeze(1)
        scores = -torch.arange(len(rows)).float()
        expected = rows[CONVENTIONS[name].nms(own[rows], scores, threshold)]
        assert result.nonzero().squeeze(1).tolist() == expected.tolist()


@given(box_sets, st.sampled_from(OVERLAPS))
def test_both_forms_keep_the_same(sets, overlap):
    boxes = torch.tensor([[box for box, _ in own] for own in sets])
    candidates = torch.tensor([[flag for _, flag in own] for own in sets])
    in_turn = kept_in_turn(boxes, candidates, overlap)
    assert torch.equal(kept_at_once(boxes, candidates, overlap), in_turn)


@pytest.mark.parametrize("pairs_at_once", [1, 5000, 2**23])
@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 300])
def test_forms_agree_on_many_boxes(count, pairs_at_once, monkeypatch):
    """Whatever the number of rows of overlaps that are computed at a time."""
    monkeypatch.setattr(batched_nms, "_PAIRS_AT_ONCE", pairs_at_once)
    boxes, candidates = crowd(3, count)
    in_turn = kept_in_turn(boxes, candidates, OVERLAPS[1])
    assert torch.equal(kept_at_once(boxes, candidates, OVERLAPS[1]), in_turn)
    assert not (in_turn & ~candidates).any()


def test_a_chain_longer_than_the_rounds_between_two_looks():
    """Each box overlaps the next one only: every other one is kept."""
    left = torch.arange(3 * ROUNDS + 1) * 5.0
    boxes = torch.stack([left, 0 * left, left + 10, 0 * left + 10], dim=1)[None]
    kept = kept_at_once(boxes, torch.ones(boxes.shape[:2], dtype=torch.bool), 0.3)
    assert kept[0].tolist() == [i % 2 == 0 for i in range(len(left))]
