"""res5 whose first convolutions come before pooling, against convolutions after it."""

import copy

import pytest
import torch
from detectron2.layers import FrozenBatchNorm2d, ROIAlign
from detectron2.modeling.backbone.resnet import BottleneckBlock
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from vmb_d2.modeling.inference_form import fuse
from vmb_d2.modeling.poolers import BagROIAlign
from vmb_d2.modeling.res5 import PooledRes5

SIZE = (11, 15)  # of a map, at a quarter of the resolution


def some_norm(convolution, generator):
    """A frozen batch norm that shifts and scales."""
    channels = convolution.out_channels
    norm = FrozenBatchNorm2d(channels)
    for buffer in (norm.weight, norm.running_var):
        buffer.copy_(0.5 + torch.rand(channels, generator=generator))
    for buffer in (norm.bias, norm.running_mean):
        buffer.copy_(torch.randn(channels, generator=generator))
    return norm


def some_stage(generator, stride_in_1x1, groups, stride=2, normed=True):
    """Two bottleneck blocks, with batch norm or biases."""
    options = {"num_groups": groups, "norm": "", "stride_in_1x1": stride_in_1x1}
    stage = nn.Sequential(
        BottleneckBlock(6, 12, bottleneck_channels=8, stride=stride, **options),
        BottleneckBlock(12, 12, bottleneck_channels=8, **options),
    )
    for block in stage:
        for convolution in (block.conv1, block.conv2, block.conv3, block.shortcut):
            if convolution is None:
                continue
            values = torch.randn(convolution.weight.shape, generator=generator)
            convolution.weight = nn.Parameter(values, requires_grad=False)
            if normed:
                convolution.norm = some_norm(convolution, generator)
            else:
                bias = torch.randn(convolution.out_channels, generator=generator)
                convolution.bias = nn.Parameter(bias, requires_grad=False)
    return stage.eval()


def some_rois(generator, count):
    """Regions inside, across the edges and outside of two maps."""
    images = torch.randint(2, (count, 1), generator=generator).float()
    corners = -20 + 80 * torch.rand(count, 2, generator=generator)
    sides = torch.exp(4 * torch.rand(count, 2, generator=generator)) - 1
    return torch.cat([images, corners, corners + sides], dim=1)


def assert_close(found, expected):
    assert found.shape == expected.shape
    assert (found - expected).norm() <= 1e-6 * expected.norm()


@given(
    seed=st.integers(0, 10**6),
    count=st.integers(0, 9),
    stride_in_1x1=st.booleans(),
    groups=st.sampled_from([1, 2]),
    stride=st.sampled_from([1, 2]),
    side=st.sampled_from([6, 7]),
    normed=st.booleans(),
)
@settings(max_examples=60, deadline=None)
@torch.no_grad()
def test_the_same_as_after_pooling(seed, count, stride_in_1x1, groups, stride, side, normed):
    generator = torch.Generator().manual_seed(seed)
    stage = some_stage(generator, stride_in_1x1, groups, stride, normed).double()
    feature = torch.randn(2, 6, *SIZE, generator=generator).double()
    rois = some_rois(generator, count).double()
    expected = stage(ROIAlign((side, side), 0.25, 0, aligned=False)(feature, rois))
    res5 = PooledRes5(stage, BagROIAlign((side, side), 0.25, 0), feature, regions=10**6)
    assert res5.maps
    found = res5(rois)
    assert found.shape == expected.shape
    assert (found - expected).norm() <= 1e-12 * expected.norm()


@pytest.mark.parametrize("stride_in_1x1", [False, True])
@torch.no_grad()
def test_packed_blocks(stride_in_1x1):
    """Whether their weights have been packed by a call before, or not."""
    generator = torch.Generator().manual_seed(0)
    stage = some_stage(generator, stride_in_1x1, groups=2, normed=False)
    pooler = BagROIAlign((6, 6), 0.25, 0)
    feature = torch.randn(2, 6, *SIZE, generator=generator)
    rois = some_rois(generator, 9)
    expected = stage(pooler(feature, rois))
    packed = copy.deepcopy(stage)
    fuse(packed)
    for regions in (10**6, 0, 10**6):
        res5 = PooledRes5(packed, pooler, feature, regions)
        assert bool(res5.maps) == bool(regions)
        assert_close(res5(rois), expected)


@pytest.mark.parametrize(
    ("stride_in_1x1", "enough"),
    # (8 + 12) x 2 x 165 pixels; 8 x 36 + 12 x 9 bins of a region, or (8 + 12) x 9
    [(False, 17), (True, 37)],
)
def test_whichever_takes_fewer_multiplications(stride_in_1x1, enough):
    stage = some_stage(torch.Generator().manual_seed(0), stride_in_1x1, groups=1)
    feature = torch.zeros(2, 6, *SIZE)
    for regions in (enough - 1, enough):
        res5 = PooledRes5(stage, BagROIAlign((6, 6), 0.25, 0), feature, regions)
        assert bool(res5.maps) == (regions == enough)
    assert not PooledRes5(stage, ROIAlign((6, 6), 0.25, 0), feature, 10**6).maps
