"""The form in which a model is run: the same up to rounding, and the model itself as it was."""

import numpy as np
import pytest
import support
import torch
from detectron2.layers import Conv2d, FrozenBatchNorm2d
from detectron2.modeling.backbone.resnet import BottleneckBlock
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from reference import goldens
from vmb_d2.checkpoint.pretrained import fingerprint
from vmb_d2.data import preprocessing as images
from vmb_d2.extractor import pad
from vmb_d2.modeling.inference_form import (
    FusedBottleneckBlock,
    PackedConv2d,
    inference_form,
)

FPN, C4 = "tiny_x152_fpn", "tiny_r101_c4"
LAST = ("objectness_logits", "anchor_deltas", "cls_score", "bbox_pred")
CHANNELS_LAST = torch.channels_last
BF16 = torch.bfloat16


def batch_of(name="coffee.png"):
    image = images.load(goldens.image_path(name))
    return pad([image], images.padded_size(*image.tensor.shape[-2:]))


def regions_of(model):
    (regions,) = model.regions(batch_of(), model.feature_names)
    return regions


def values(regions):
    """Everything in regions, by name."""
    fields = dict(regions.get_fields())
    return fields | {"proposal_boxes": fields["proposal_boxes"].tensor}


class Tiny(nn.Module):
    """As much of a detector as the form needs, around one convolution."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone
        self.proposal_generator, self.roi_heads = nn.Module(), nn.Module()
        self.proposal_generator.rpn_head = nn.Module()
        self.roi_heads.box_predictor = nn.Module()
        for i, name in enumerate(LAST):
            parent = self.proposal_generator.rpn_head if i < 2 else self.roi_heads.box_predictor
            parent.add_module(name, nn.Linear(2, 2))
        self.proposal_generator.rpn_head.conv = nn.Conv2d(2, 2, 1)


@given(
    seed=st.integers(0, 1000),
    groups=st.sampled_from([1, 2, 4]),
    bias=st.booleans(),
    eps=st.sampled_from([0.0, 1e-5, 0.5]),
    memory_format=st.sampled_from([torch.contiguous_format, CHANNELS_LAST]),
)
@settings(max_examples=40)
def test_a_folded_norm_is_the_norm_after_the_convolution(seed, groups, bias, eps, memory_format):
    generator = torch.Generator().manual_seed(seed)
    norm = FrozenBatchNorm2d(8, eps)
    norm.running_mean.normal_(generator=generator)
    norm.running_var.uniform_(0.01, 3, generator=generator)
    norm.weight.normal_(generator=generator)
    norm.bias.normal_(generator=generator)
    convolution = Conv2d(4, 8, 3, padding=1, groups=groups, bias=bias, norm=norm)
    x = torch.randn(2, 4, 5, 6, generator=generator)
    plain = nn.functional.conv2d(
        x.double(),
        convolution.weight.double(),
        convolution.bias.double() if bias else None,
        padding=1,
        groups=groups,
    )
    expected = torch.empty_like(plain)
    for c in range(8):  # as the norm is defined
        deviation = (norm.running_var[c].double() + eps).sqrt()
        expected[:, c] = (plain[:, c] - norm.running_mean[c].double()) / deviation
        expected[:, c] = expected[:, c] * norm.weight[c].double() + norm.bias[c].double()
    with torch.no_grad():
        found = inference_form(Tiny(convolution), memory_format=memory_format).backbone(x)
    assert found.dtype == torch.float32
    torch.testing.assert_close(
        found.double(), expected, rtol=1e-5, atol=1e-5 * float(expected.std())
    )


@pytest.mark.parametrize("name", [FPN, C4])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, CHANNELS_LAST])
def test_float32_gives_the_same_up_to_rounding(name, memory_format):
    model = support.tiny_model(name)
    form = model.for_inference(torch.float32, memory_format)
    assert not any(isinstance(m, FrozenBatchNorm2d) for m in form.modules())
    batch = batch_of()
    with torch.no_grad():
        expected, found = model.backbone(batch.tensor), form.backbone(batch.tensor)
    for level in expected:
        error = (found[level] - expected[level]).norm() / expected[level].norm()
        assert error < 1e-5
        assert found[level].is_contiguous(memory_format=memory_format)


def weights_of(model):
    return {name: (p.data_ptr(), p.dtype, p.clone()) for name, p in model.state_dict().items()}


@pytest.mark.parametrize("dtype", [torch.float32, BF16])
def test_the_model_itself_stays_as_it_is(dtype):
    model = support.tiny_model(C4)
    before, digest, seen = weights_of(model), fingerprint(model), values(regions_of(model))
    form = model.for_inference(dtype, CHANNELS_LAST)
    regions_of(form)
    after = weights_of(model)
    assert after.keys() == before.keys()
    for name, (pointer, kind, value) in before.items():
        assert after[name][:2] == (pointer, kind), name
        assert torch.equal(after[name][2], value), name
    assert fingerprint(model) == digest
    again = values(regions_of(model))
    assert all(torch.equal(again[name], value) for name, value in seen.items())


def test_what_does_not_change_is_shared():
    model = support.tiny_model(FPN)
    form = model.for_inference()
    own = {name: p.data_ptr() for name, p in model.named_parameters()}
    shared = {name for name, p in form.named_parameters() if own.get(name) == p.data_ptr()}
    folded = {
        f"{name}.weight"
        for name, m in model.named_modules()
        if isinstance(m, Conv2d) and m.norm is not None
    }
    assert len(folded) > 100
    assert shared == own.keys() - folded


@pytest.mark.parametrize("name", [FPN, C4])
def test_what_is_in_the_lower_precision(name):
    form = support.tiny_model(name).for_inference(BF16, CHANNELS_LAST)
    for key, value in [*form.named_parameters(), *form.named_buffers()]:
        last = any(f".{name}." in key for name in LAST)
        floats = last or "anchor" in key or key.startswith("pixel_")
        assert value.dtype == (torch.float32 if floats else BF16), key
        if value.ndim == 4 and not last:
            assert value.is_contiguous(memory_format=CHANNELS_LAST), key
    with torch.no_grad():
        maps = form.backbone(batch_of().tensor)
    assert {m.dtype for m in maps.values()} == {BF16}


@pytest.mark.parametrize("name", [FPN, C4])
def test_what_comes_out_is_float32_with_all_its_digits(name, monkeypatch):
    """Boxes are never rounded, nor are the numbers by which regions are ranked."""
    pooled = []
    embedding_bag = nn.functional.embedding_bag

    def recorded(indices, pixels, *, per_sample_weights, **arguments):
        pooled.append((pixels.dtype, per_sample_weights.dtype))
        return embedding_bag(indices, pixels, per_sample_weights=per_sample_weights, **arguments)

    monkeypatch.setattr(nn.functional, "embedding_bag", recorded)
    found = values(regions_of(support.tiny_model(name).for_inference(BF16, CHANNELS_LAST)))
    assert set(pooled) == {(torch.float32, torch.float32)}
    for key, value in found.items():
        assert value.dtype == torch.float32, key
        if key not in ("fc6", "fc7"):
            short = value.bfloat16().float() == value
            assert short.float().mean() < 0.5, key


@pytest.mark.parametrize("name", [FPN, C4])
def test_on_a_cpu_bfloat16_convolutions_are_fused(name, monkeypatch):
    model = support.tiny_model(name)
    form = model.for_inference(BF16, CHANNELS_LAST)
    kinds = {type(m) for m in form.modules() if isinstance(m, (Conv2d, BottleneckBlock))}
    assert kinds == {PackedConv2d, FusedBottleneckBlock}
    fused = values(regions_of(form))
    assert all(m.weight.is_mkldnn for m in form.modules() if isinstance(m, PackedConv2d))
    float32 = model.for_inference(torch.float32, CHANNELS_LAST)
    monkeypatch.setattr("vmb_d2.modeling.inference_form.can_fuse", lambda: False)
    plain = model.for_inference(BF16, CHANNELS_LAST)
    for other in (model, float32, plain):
        kinds = {type(m) for m in other.modules() if isinstance(m, (Conv2d, BottleneckBlock))}
        assert kinds == {Conv2d, BottleneckBlock}
    with torch.no_grad():
        exact = model.backbone(batch_of().tensor)
        errors = [
            [
                float((f.backbone(batch_of().tensor)[k] - v).norm() / v.norm())
                for k, v in exact.items()
            ]
            for f in (form, plain)
        ]
    for fused_error, plain_error in zip(*errors, strict=True):
        assert fused_error < 1.1 * plain_error
    assert fused.keys() == values(regions_of(plain)).keys()


@pytest.mark.parametrize("name", [FPN, C4])
def test_as_a_detector(name):
    form = support.tiny_model(name).for_inference(BF16, CHANNELS_LAST)
    image = torch.from_numpy(np.full((3, 200, 300), 90, np.float32))
    with torch.no_grad():
        (result,) = form([{"image": image}])
    found = result["instances"]
    assert len(found) > 0
    assert found.pred_boxes.tensor.dtype == found.scores.dtype == torch.float32
