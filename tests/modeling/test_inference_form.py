"""The form in which a model is run: the same up to rounding, and the model itself as it was."""

import numpy as np
import pytest
import support
import torch
from detectron2.layers import Conv2d, FrozenBatchNorm2d
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from reference import goldens
from vmb_d2.checkpoint.pretrained import fingerprint
from vmb_d2.data import preprocessing as images
from vmb_d2.extractor import pad
from vmb_d2.modeling.inference_form import inference_form

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


@pytest.mark.slow
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


@pytest.mark.parametrize("name", [FPN, C4])
def test_bfloat16_maps_and_float32_results(name):
    """Boxes are never rounded, nor are the numbers by which regions are ranked."""
    form = support.tiny_model(name).for_inference(BF16, CHANNELS_LAST)
    with torch.no_grad():
        maps = form.backbone(batch_of().tensor)
    assert {m.dtype for m in maps.values()} == {BF16}
    for key, value in values(regions_of(form)).items():
        assert value.dtype == torch.float32, key
        if key not in ("fc6", "fc7"):
            short = value.bfloat16().float() == value
            assert short.float().mean() < 0.5, key


@pytest.mark.slow
@pytest.mark.parametrize("name", [FPN, C4])
def test_fused_convolutions_are_as_exact_as_others(name, monkeypatch):
    model, batch = support.tiny_model(name), batch_of().tensor
    fused = model.for_inference(BF16, CHANNELS_LAST)
    monkeypatch.setattr("vmb_d2.modeling.inference_form.can_fuse", lambda: False)
    plain = model.for_inference(BF16, CHANNELS_LAST)
    with torch.no_grad():
        exact = model.backbone(batch)
        maps = [form.backbone(batch) for form in (fused, plain)]
    for level, expected in exact.items():
        errors = [float((m[level] - expected).norm() / expected.norm()) for m in maps]
        assert errors[0] < 1.1 * errors[1]


@pytest.mark.parametrize("name", [FPN, C4])
def test_as_a_detector(name):
    form = support.tiny_model(name).for_inference(BF16, CHANNELS_LAST)
    image = torch.from_numpy(np.full((3, 200, 300), 90, np.float32))
    with torch.no_grad():
        (result,) = form([{"image": image}])
    found = result["instances"]
    assert len(found) > 0
    assert found.pred_boxes.tensor.dtype == found.scores.dtype == torch.float32
