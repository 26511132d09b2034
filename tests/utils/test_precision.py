"""The precisions: TF32 only where asked for, what bfloat16 costs, what is refused and recorded."""

import contextlib
import json

import jobs
import numpy as np
import pytest
import support
import torch
from fakes import FakeExtractor, small_images

from reference import goldens
from vmb_d2.checkpoint.pretrained import fingerprint
from vmb_d2.comparison.fidelity import nearest_boxes, relative_errors
from vmb_d2.errors import ConfigError, OutputError
from vmb_d2.extractor import RegionFeatureExtractor
from vmb_d2.stores.mmf import MMFReader
from vmb_d2.utils.devices import PRECISIONS, arithmetic, check_precision


def settings():
    cudnn = torch.backends.cudnn
    tf32 = cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    return tf32, (cudnn.enabled, cudnn.benchmark, cudnn.deterministic)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("other", [False, True])
def test_settings_of_gpus_are_fixed_inside_and_as_before_after(monkeypatch, precision, other):
    """TF32 is on where asked for alone. cuDNN's algorithms are the same in each run."""
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", other)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", other)
    before = settings()
    assert before == ((True, other), (True, other, False))  # the others are PyTorch's defaults
    with pytest.raises(KeyError), arithmetic(precision):
        assert settings() == ((precision == "tf32",) * 2, (True, False, True))
        raise KeyError
    assert settings() == before


@pytest.mark.parametrize(
    ("capability", "expected"), [((7, 5), ["fp32", "fp16"]), ((8, 0), list(PRECISIONS))]
)
def test_what_gpus_have(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    found = []
    for precision in PRECISIONS:
        with contextlib.suppress(ConfigError):
            check_precision(precision, torch.device("cuda:1"))
            found.append(precision)
    assert found == expected


@pytest.mark.parametrize(
    ("precision", "text"),
    [
        ("tf32", "precision=tf32: cpu doesn't have it; valid are fp32, bf16"),
        ("fp16", "precision=fp16: cpu doesn't have it; valid are fp32, bf16"),
        ("float32", "precision=float32: valid are fp32, bf16"),
    ],
)
def test_what_is_refused(precision, text, tmp_path):
    """Before the weights are looked for."""
    missing = {"weights": tmp_path / "none.pth", "device": "cpu"}
    with pytest.raises(ConfigError) as caught:
        RegionFeatureExtractor.from_pretrained("x152", precision=precision, **missing)
    assert str(caught.value) == text


def test_the_fingerprint_is_of_the_checkpoints_weights():
    model = support.tiny_model("tiny_r101_c4")
    for precision in ("fp32", "bf16"):
        extractor = RegionFeatureExtractor(model, precision=precision)
        assert extractor.weights_sha256 == fingerprint(model)
    assert fingerprint(model.for_inference()) != fingerprint(model)


@pytest.mark.parametrize("name", support.TINY_MODELS)
def test_bfloat16_against_the_goldens(name):
    """Stated tolerances of photographs: half of the golden's boxes within 2 px, the features of
    these within 5e-2 relative L2 error in the median, 95 % of the classes. Nor is it float32.
    """
    extractor = RegionFeatureExtractor(support.tiny_model(name), precision="bf16")
    for path, _, image in goldens.find(rf"{name}\.seed0\.bs1\."):
        if image == "horse.png":
            continue
        expected, found = goldens.load(path), extractor.extract(goldens.image_path(image))
        nearest, distances = nearest_boxes(expected.bbox, found.bbox)
        near = distances <= 2
        errors = relative_errors(expected.features, found.features[nearest])[near]
        same = (expected.objects == found.objects[nearest])[near]
        print(f"{image} {near.mean():.0%} {np.median(errors):.1e} {same.mean():.1%}", end=" ")
        assert near.mean() >= 0.5
        assert 1e-4 < np.median(errors) < 5e-2
        assert same.mean() >= 0.95
        for value in (found.features, found.bbox, found.cls_prob):
            assert value.dtype == np.float32


def test_bfloat16_of_given_boxes():
    """Boxes as given; each feature vector within 5e-2, logits within 0.5."""
    ((path, _, image),) = goldens.find(r"tiny_x152_fpn\.seed0\.given_boxes\.")
    golden = np.load(path)
    extractor = RegionFeatureExtractor(support.tiny_model("tiny_x152_fpn"), precision="bf16")
    found = extractor.extract(goldens.image_path(image), boxes=golden["boxes"])
    np.testing.assert_array_equal(found.bbox, golden["boxes"])
    errors = relative_errors(golden["fc6"], found.features)
    logits = np.abs(found.class_logits - golden["scores"]).max()
    print(f"{errors.max():.1e}, {logits:.2f}", end=" ")
    assert 1e-4 < errors.min() <= errors.max() < 5e-2
    assert logits < 0.5


def test_another_precision_is_refused(tmp_path, out):
    images = small_images(tmp_path / "in", 3)
    jobs.run(out, images[:2], FakeExtractor(precision="fp32"))
    refused = 'holds features of other settings: precision: "fp32" there, "bf16" now'
    with pytest.raises(OutputError, match=refused):
        jobs.run(out, images, FakeExtractor(precision="bf16"))


@pytest.mark.slow
def test_the_option(tmp_path, out):
    done = support.extract_tiny(
        "tiny_r101_c4", goldens.image_path("coffee.png"), out, "precision=bf16"
    )
    assert done.returncode == 0, done.stderr
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["runs"][-1]["precision"] == manifest["settings"]["precision"] == "bf16"
    model = support.tiny_model("tiny_r101_c4")
    assert manifest["settings"]["weights_sha256"] == fingerprint(model)
    found = MMFReader(out).read("coffee")
    extractor = RegionFeatureExtractor(model, precision="bf16")
    expected = extractor.extract(goldens.image_path("coffee.png"))
    assert relative_errors(expected.features, found.features).max() < 1e-5
