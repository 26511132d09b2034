"""Anchors against a naive loop and against those in the original's checkpoints."""

import naive
import pytest
import support
import torch
from hypothesis import given
from hypothesis import strategies as st

from vmb_d2.modeling.anchors import VMBAnchorGenerator, cell_anchors
from weights_conversion.state_dict import anchors_of


@pytest.mark.parametrize("model", (*support.FULL_MODELS, *support.TINY_MODELS, "vinvl"))
def test_anchors_are_those_of_the_original(model):
    expected = list(support.listing(model)["anchors"].values())
    assert [a.tolist() for a in anchors_of(support.description(model))] == expected


@given(
    st.sampled_from([4, 8, 16, 32, 64]),
    st.lists(st.integers(8, 1024), min_size=1, max_size=5),
    st.lists(st.sampled_from([0.25, 0.5, 1.0, 2.0, 4.0]), min_size=1, max_size=5),
)
def test_cell_anchors(stride, sizes, ratios):
    expected = torch.tensor(naive.cell_anchors(stride, sizes, ratios))
    assert torch.allclose(cell_anchors(stride, sizes, ratios), expected, rtol=1e-6)


def test_grid():
    generator = VMBAnchorGenerator(
        sizes=[[32, 64], [128, 256]], aspect_ratios=[[0.5, 1.0, 2.0]], strides=[8, 16], offset=0.0
    )
    maps = [torch.zeros(1, 1, 3, 5), torch.zeros(1, 1, 2, 2)]
    grids = generator(maps)
    for grid, stride, sizes, map_ in zip(grids, (8, 16), ((32, 64), (128, 256)), maps, strict=True):
        cell = naive.cell_anchors(stride, sizes, (0.5, 1.0, 2.0))
        expected = naive.grid_anchors(cell, stride, *map_.shape[-2:])
        assert grid.tensor.tolist() == expected
