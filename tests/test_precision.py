"""TF32 is off while the network runs, and nothing else is touched."""

import pytest
import support
import torch
from reference import goldens

from vmb_d2.extractor import RegionFeatureExtractor
from vmb_d2.precision import arithmetic


def settings():
    cudnn = torch.backends.cudnn
    tf32 = cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    return tf32, (cudnn.enabled, cudnn.benchmark, cudnn.deterministic)


@pytest.mark.parametrize("matmul", [False, True])
def test_tf32_is_off_inside_and_back_after(monkeypatch, matmul):
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", matmul)
    before = settings()
    assert before[0] == (True, matmul)  # PyTorch's own default for convolutions
    with pytest.raises(KeyError), arithmetic():
        assert settings() == ((False, False), before[1])
        raise KeyError
    assert settings() == before


def test_extraction_runs_without_tf32(monkeypatch):
    model = support.tiny_model("tiny_r101_c4")
    seen = []
    regions = model.regions
    monkeypatch.setattr(
        model, "regions", lambda *args: seen.append(settings()[0]) or regions(*args)
    )
    RegionFeatureExtractor(model)(goldens.image_path("horse.png"))
    assert seen == [(False, False)]
