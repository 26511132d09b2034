"""Winograd's minimal filtering against the convolution in float64, and the models that have it."""

import contextlib

import pytest
import support
import torch
from detectron2.layers import Conv2d, FrozenBatchNorm2d
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from reference import goldens
from vmb_d2.data import preprocessing as images
from vmb_d2.extractor import RegionFeatureExtractor
from vmb_d2.modeling import winograd
from vmb_d2.modeling.winograd import WinogradConv2d, with_winograd

WIDE = 512
TINY = (support.TINY_FPN, "tiny_r101_c4", "tiny_bua_caffe")  # the last one's res5 is dilated
BF16 = torch.bfloat16


@contextlib.contextmanager
def everywhere():
    """Let it be used for all channels and maps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(winograd, "MIN_CHANNELS", 1)
        patch.setattr(winograd, "MIN_MULTIPLICATIONS", 0)
        yield


def convolution(seed, channels=(WIDE, WIDE), dilation=1, bias=True, **options):
    generator = torch.Generator().manual_seed(seed)
    made = Conv2d(*channels, 3, padding=dilation, dilation=dilation, bias=bias, **options)
    made.weight.data = torch.randn(made.weight.shape, generator=generator) / 48
    if bias:
        made.bias.data = torch.randn(made.bias.shape, generator=generator)
    return nn.Sequential(made).eval()


def some_maps(seed, count, channels, height, width):
    return torch.randn(
        count, channels, height, width, generator=torch.Generator().manual_seed(seed)
    )


def exact(x, module):
    (c,) = module
    bias = None if c.bias is None else c.bias.double()
    return F.conv2d(x.double(), c.weight.double(), bias, 1, c.padding, c.dilation)


@given(
    seed=st.integers(0, 10**6),
    count=st.integers(0, 3),
    channels=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    dilation=st.integers(1, 3),
    bias=st.booleans(),
)
@example(0, 2, (3, 4), (1, 1), 1, True)
@example(0, 1, (3, 4), (1, 60), 1, False)
@example(0, 1, (3, 4), (2, 1100), 1, True)  # one row of tiles is more than is done at once
@example(0, 70, (WIDE, WIDE), (7, 7), 1, True)
@example(0, 9, (WIDE, WIDE), (14, 14), 2, True)
@example(0, 2, (3, 4), (101, 76), 1, True)
@settings(max_examples=100)
@torch.no_grad()
def test_it_is_the_convolution(seed, count, channels, size, dilation, bias):
    module = convolution(seed, channels, dilation, bias)
    x = some_maps(seed, count, channels[0], *size)
    with everywhere():
        (replaced,) = with_winograd(module)
        assert isinstance(replaced, WinogradConv2d)
        found = replaced(x)
    expected = exact(x, module)
    assert (found.shape, found.dtype) == (expected.shape, x.dtype)
    assert found.is_contiguous()
    if found.numel():
        assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize(
    ("count", "size", "dilation", "pays"),
    [
        (1, (64, 66), 1, False),
        (1, (65, 66), 1, True),
        (2, (64, 66), 1, False),
        (1, (7, 7), 1, True),
        (9, (14, 14), 1, False),
        (2, (14, 14), 2, True),
        (2, (4, 7), 1, False),
    ],
)
@torch.no_grad()
def test_the_shape_of_a_map_decides(count, size, dilation, pays):
    """At 512 channels; elsewhere the convolution is computed as before, to the bit."""
    module = convolution(0, dilation=dilation)
    (layer,) = with_winograd(module)
    x = some_maps(0, count, WIDE, *size)
    found, expected = layer(x), exact(x, module)
    assert torch.equal(found, module(x)) == (not pays)
    assert (found - expected).norm() < 2e-6 * expected.norm()


@torch.no_grad()
def test_the_matrices_in_exact_arithmetic():
    """In float64, nothing but its rounding remains."""
    module = convolution(0, (5, 7)).double()
    x = some_maps(0, 2, 5, 9, 14).double()
    found = winograd.minimal_filtering(x, winograd.transformed(module[0].weight), module[0].bias)
    torch.testing.assert_close(found, exact(x, module), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(("size", "dilation"), [((7, 7), 1), ((14, 14), 2), ((13, 19), 1)])
@torch.no_grad()
def test_neither_other_maps_nor_pieces_change_a_map(monkeypatch, size, dilation):
    monkeypatch.setattr(winograd, "MIN_MULTIPLICATIONS", 0)
    (layer,) = with_winograd(convolution(0, dilation=dilation))
    x = some_maps(0, 80, WIDE, *size)
    expected = layer(x)
    for count in (1, 2, 5, 70):
        assert torch.equal(layer(x[:count]), expected[:count])
    for at_once in (4, 16, 700):
        monkeypatch.setattr(winograd, "TILES_AT_ONCE", at_once)
        assert torch.equal(layer(x[:9]), expected[:9])


@torch.no_grad()
def test_norm_and_activation_as_in_detectron2():
    norm = FrozenBatchNorm2d(WIDE)
    norm.weight.uniform_(0.5, 2)
    norm.bias.uniform_(-1, 1)
    module = convolution(0, bias=False, norm=norm, activation=nn.ReLU())
    x = some_maps(0, 1, WIDE, 7, 7)
    (layer,) = with_winograd(module)
    expected = module(x)
    found = layer(x)
    assert not torch.equal(found, expected)
    assert 0.1 < (found == 0).float().mean() < 0.9
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "other",
    [
        Conv2d(WIDE, WIDE, 1),
        Conv2d(WIDE, WIDE, 3),
        Conv2d(WIDE, WIDE, 3, stride=2, padding=1),
        Conv2d(WIDE, WIDE, 3, padding=1, groups=2),
        Conv2d(WIDE, WIDE, 3, padding=2),
        Conv2d(WIDE - 1, WIDE, 3, padding=1),
        Conv2d(WIDE, WIDE - 1, 3, padding=1),
        Conv2d(WIDE, WIDE, 5, padding=2),
    ],
    ids=lambda c: c.extra_repr(),
)
def test_others_are_left_as_they_are(other):
    (layer,) = with_winograd(nn.Sequential(other))
    assert type(layer) is Conv2d


@pytest.mark.parametrize("name", TINY)
def test_a_model_gives_the_same_up_to_rounding(name):
    """Its weights are named as before, and the model itself stays as it is."""
    model = support.tiny_model(name)
    before = [type(m) for m in model.modules()]
    description = support.description(name)
    image = images.load(goldens.image_path("coffee.png"), description.input)
    boxes = [torch.tensor([[0.0, 0.0, 300.0, 200.0], [50.0, 60.0, 90.0, 200.0]])]
    with everywhere():
        with_it, without = (
            RegionFeatureExtractor(model, description=description, layer_by_layer=direct)
            for direct in (False, True)
        )
        found, expected = (
            own.extract_batch([image], image.padded_size, boxes)[0] for own in (with_it, without)
        )
    replaced = [m for m in with_it.model.modules() if isinstance(m, WinogradConv2d)]
    assert len(replaced) >= 5
    assert without.model is model
    assert [type(m) for m in model.modules()] == before
    state = model.state_dict()
    assert with_it.model.state_dict().keys() == state.keys()
    for key, value in with_it.model.state_dict().items():
        assert value.data_ptr() == state[key].data_ptr()
    assert with_it.weights_sha256 == without.weights_sha256
    error = abs(found.features - expected.features).max() / abs(expected.features).max()
    assert 0 < error < 1e-5


@pytest.mark.parametrize(
    ("precision", "layer_by_layer", "expected"),
    [("fp32", False, True), ("fp32", True, False), ("bf16", False, False)],
)
def test_where_it_has_an_effect(precision, layer_by_layer, expected):
    model = support.tiny_model(TINY[0])
    with everywhere():
        own = RegionFeatureExtractor(model, precision=precision, layer_by_layer=layer_by_layer)
    assert own.layer_by_layer != expected
    assert any(isinstance(m, WinogradConv2d) for m in own.model.modules()) == expected
