"""The network alone: its time, its arithmetic and the hardware's."""

import contextlib
import math

import pytest
import support
import torch
from benchmarked import Clock, strips
from benchmarking import network, peak
from benchmarking.network import count_macs, network_seconds
from benchmarking.peak import peak_macs_per_second
from benchmarking.stages import STAGES
from torch import nn

from vmb_d2.extractor import RegionFeatureExtractor
from vmb_d2.utils.devices import PRECISIONS

PREFIXES = {"backbone": "backbone", "proposal_generator": "rpn", "roi_heads": "roi_head"}


@contextlib.contextmanager
def naive_count(model):
    """Multiply-accumulates by stage, from the shapes that every layer gives."""
    counts = dict.fromkeys(STAGES, 0)

    def count(stage, layer, result):
        if isinstance(layer, nn.Linear):
            each = layer.in_features
        else:
            each = layer.in_channels // layer.groups * math.prod(layer.kernel_size)
        counts[stage] += result.numel() * each

    hooks = [
        layer.register_forward_hook(
            lambda layer, _, result, part=part: count(PREFIXES[part], layer, result)
        )
        for part in PREFIXES
        for layer in getattr(model, part).modules()
        if isinstance(layer, (nn.Conv2d, nn.Linear))
    ]
    yield counts
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize("model", support.TINY_MODELS)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_macs_are_those_of_all_layers(tmp_path, model, mode, precision):
    extractor = RegionFeatureExtractor(support.tiny_model(model), precision=precision)
    images = strips(tmp_path, 2)
    with naive_count(extractor.model) as counts, mode():
        found = count_macs(extractor, images, 2, lambda *args: None)
    assert found == counts
    assert min(found[stage] for stage in PREFIXES.values()) > 0


def test_groups_are_counted_as_such(tmp_path):
    model = support.tiny_model("tiny_x152_fpn")
    assert max(m.groups for m in model.modules() if isinstance(m, nn.Conv2d)) > 1


def test_only_the_network_is_timed(tmp_path, monkeypatch):
    now = Clock()
    extractor = RegionFeatureExtractor(support.tiny_model(support.TINY_FPN))
    monkeypatch.setattr(network, "clock", lambda device: now)
    monkeypatch.setattr(network, "load", now.turned_by(1, network.load))
    monkeypatch.setattr(extractor, "to_network", now.turned_by(10, extractor.to_network))
    monkeypatch.setattr(extractor, "network", now.turned_by(100, extractor.network))
    images = strips(tmp_path, 3)
    assert network_seconds(extractor, images, 2) == 200
    assert now.seconds == 223


def test_the_peak_is_the_fastest_product(monkeypatch):
    times = iter([0, 8, 10, 12, 20, 24])
    monkeypatch.setattr(peak, "clock", lambda device: lambda: next(times))
    assert peak_macs_per_second("fp32", torch.device("cpu"), side=16, products=3) == 16**3 / 2
    assert next(times, None) is None


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_product_is_in_the_precision(monkeypatch, precision):
    seen = []
    products = torch.backends.cuda.matmul
    matmul = torch.matmul

    def spy(a, b):
        seen.append((a.dtype, b.dtype, a.shape, products.allow_tf32))
        return matmul(a, b)

    monkeypatch.setattr(torch, "matmul", spy)
    for before in (False, True):
        monkeypatch.setattr(products, "allow_tf32", before)
        assert peak_macs_per_second(precision, torch.device("cpu"), side=32, products=2) > 0
        assert products.allow_tf32 == before
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
    assert seen == [(dtype, dtype, (32, 32), precision == "tf32")] * 6
