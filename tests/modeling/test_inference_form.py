"""The form in which a model is run: the same up to rounding, and the model itself as it was."""

import pytest
import support
import torch
from detectron2.layers import FrozenBatchNorm2d

from reference import goldens
from vmb_d2.checkpoint.pretrained import fingerprint
from vmb_d2.data import preprocessing as images
from vmb_d2.extractor import pad

FPN, C4 = "tiny_x152_fpn", "tiny_r101_c4"
BF16 = torch.bfloat16


def batch_of(name="coffee.png"):
    image = images.load(goldens.image_path(name))
    return pad([image], image.padded_size)


def regions_of(model):
    (regions,) = model.regions(batch_of(), model.feature_names).regions
    return regions


def values(regions):
    """Everything in regions, by name."""
    fields = dict(regions.get_fields())
    return fields | {"proposal_boxes": fields["proposal_boxes"].tensor}


@pytest.mark.parametrize("name", [FPN, C4])
def test_float32_gives_the_same_up_to_rounding(name):
    model = support.tiny_model(name)
    form = model.for_inference()
    assert not any(isinstance(m, FrozenBatchNorm2d) for m in form.modules())
    batch = batch_of()
    with torch.no_grad():
        expected, found = model.backbone(batch.tensor), form.backbone(batch.tensor)
    for level in expected:
        error = (found[level] - expected[level]).norm() / expected[level].norm()
        assert error < 1e-5
        assert found[level].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, BF16])
def test_the_model_itself_stays_as_it_is(dtype):
    model = support.tiny_model(C4)
    digest, seen = fingerprint(model), values(regions_of(model))
    regions_of(model.for_inference(dtype))
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert fingerprint(model) == digest
    again = values(regions_of(model))
    assert all(torch.equal(again[name], value) for name, value in seen.items())


@pytest.mark.parametrize("name", [FPN, C4])
def test_bfloat16_maps_and_float32_results(name):
    """Boxes are never rounded, nor are the numbers by which regions are ranked."""
    form = support.tiny_model(name).for_inference(BF16)
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
    fused = model.for_inference(BF16)
    monkeypatch.setattr("vmb_d2.modeling.inference_form.can_fuse", lambda dtype: False)
    plain = model.for_inference(BF16)
    with torch.no_grad():
        exact = model.backbone(batch)
        maps = [form.backbone(batch) for form in (fused, plain)]
    for level, expected in exact.items():
        errors = [float((m[level] - expected).norm() / expected.norm()) for m in maps]
        assert errors[0] < 1.1 * errors[1]
