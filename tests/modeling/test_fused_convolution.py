"""oneDNN's operators against PyTorch's, and the modules they are in against Detectron2's."""

import copy

import pytest
import torch
from detectron2.layers import Conv2d
from detectron2.modeling.backbone.resnet import BottleneckBlock
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from vmb_d2.modeling.inference_form import fuse

# Float32 shows more than bfloat16 does; a bfloat16 result is a float32 one that was rounded.
TOLERANCES = {torch.float32: (1e-5, 1e-5), torch.bfloat16: (1e-2, 3e-2)}


def some_maps(generator, channels, dtype, count=2, size=(9, 12)):
    maps = torch.randn(count, channels, *size, generator=generator)
    return maps.to(dtype=dtype, memory_format=torch.channels_last)


def ready(module, dtype):
    for p in module.parameters():
        p.requires_grad = False
    return module.to(dtype=dtype, memory_format=torch.channels_last)


def fused(module):
    """A fused copy."""
    module = nn.Sequential(copy.deepcopy(module))
    fuse(module)
    return module[0]


def assert_same(found, expected):
    relative, absolute = TOLERANCES[expected.dtype]
    assert found.dtype == expected.dtype
    if len(found):
        assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found, expected, rtol=relative, atol=absolute)


@given(
    seed=st.integers(0, 10**6),
    dtype=st.sampled_from(list(TOLERANCES)),
    groups=st.sampled_from([1, 2, 4]),
    bias=st.booleans(),
    kernel=st.sampled_from([1, 3]),
    stride=st.sampled_from([1, 2]),
    activation=st.sampled_from([None, nn.ReLU()]),
)
@settings(max_examples=60, deadline=None)
def test_a_packed_convolution(seed, dtype, groups, bias, kernel, stride, activation):
    torch.manual_seed(seed)
    plain = Conv2d(
        8,
        12,
        kernel,
        stride,
        padding=kernel // 2,
        groups=groups,
        bias=bias,
        activation=activation,
    )
    plain = ready(plain, dtype)
    packed = fused(plain)
    generator = torch.Generator().manual_seed(seed)
    for count, size in ((2, (9, 12)), (1, (20, 7)), (0, (9, 12)), (3, (9, 12))):
        maps = some_maps(generator, 8, dtype, count, size)
        before = maps.clone()
        assert_same(packed(maps), plain(maps))
        assert torch.equal(maps, before)


@pytest.mark.parametrize("dtype", list(TOLERANCES))
@pytest.mark.parametrize(("channels", "stride"), [((16, 16), 1), ((8, 16), 2)])
@pytest.mark.parametrize("stride_in_1x1", [False, True])
def test_a_bottleneck_block(dtype, channels, stride, stride_in_1x1):
    torch.manual_seed(0)
    block = BottleneckBlock(
        *channels,
        bottleneck_channels=8,
        stride=stride,
        num_groups=2,
        norm="",
        stride_in_1x1=stride_in_1x1,
    )
    for convolution in (block.conv1, block.conv2, block.conv3, block.shortcut):
        if convolution is not None:
            convolution.bias = nn.Parameter(torch.randn(convolution.out_channels) / 2)
    block = ready(block, dtype)
    packed = fused(block)
    generator = torch.Generator().manual_seed(1)
    for count in (2, 0, 5):
        maps = some_maps(generator, channels[0], dtype, count)
        before = maps.clone()
        expected = block(maps)
        assert torch.equal(maps, before)
        assert_same(packed(maps), expected)
        assert torch.equal(maps, before)
        if count:
            assert 0.1 < (expected == 0).float().mean() < 0.9
