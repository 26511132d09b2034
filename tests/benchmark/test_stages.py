"""The stages are the extraction's own, each gets its own time, and operations are all counted."""

import contextlib
import math

import pytest
import support
import torch
from benchmarked import strips
from benchmarking import stages
from benchmarking.stages import STAGES, count_macs, network_seconds, run_stages
from torch import nn

from vmb_d2.extractor import RegionFeatureExtractor
from vmb_d2.modeling import res5

pytestmark = pytest.mark.slow


class Clock:
    """Stands still until it is turned."""

    def __init__(self):
        self.seconds = 0.0

    def __call__(self):
        return self.seconds

    def turned_by(self, seconds, function):
        """``function``, which takes so long."""

        def slow(*args, **kwargs):
            self.seconds += seconds
            return function(*args, **kwargs)

        return slow


@pytest.fixture
def now(monkeypatch):
    """The clock of the measurements."""
    now = Clock()
    monkeypatch.setattr(stages, "clock", lambda device: now)
    return now


@pytest.fixture
def extractor():
    return RegionFeatureExtractor(support.tiny_model(support.TINY_FPN))


def ignore(images, results):
    pass


@pytest.mark.parametrize("batch_size", [1, 2])
def test_every_stage_gets_its_own_time(tmp_path, monkeypatch, extractor, now, batch_size):
    model = extractor.model
    for number, (owner, name) in enumerate(
        [
            (stages, "read_padded_size"),
            (stages, "read_image"),
            (stages, "preprocess"),
            (extractor, "to_network"),
            (model.backbone, "forward"),
            (model.proposal_generator, "forward"),
            (model.roi_heads, "region_features"),
            (model.roi_heads, "class_logits"),
            (extractor, "read_out"),
        ]
    ):
        monkeypatch.setattr(owner, name, now.turned_by(2**number, getattr(owner, name)))
    images = strips(tmp_path, 2)
    seconds = run_stages(extractor, images, batch_size, now.turned_by(512, ignore))
    batches = 2 // batch_size
    assert seconds == {
        "decode": 2 * (1 + 2),
        "resize": 2 * 4,
        "transfer": batches * 8,
        "backbone": batches * 16,
        "rpn": batches * 32,
        "roi_head": batches * (64 + 128),
        "selection": batches * 256,
        "write": batches * 512,
    }
    assert tuple(seconds) == STAGES


@pytest.mark.parametrize("batch_size", [1, 2])
def test_the_result_is_the_extractions(tmp_path, extractor, batch_size):
    images = strips(tmp_path, 3) + strips(tmp_path / "higher", 1, height=40)
    written = []
    run_stages(extractor, images, batch_size, lambda *batch: written.append(batch))
    together = {1: [1, 1, 1, 1], 2: [2, 1, 1]}
    assert [len(batch) for batch, _ in written] == together[batch_size]
    found = {i: r for batch, results in written for i, r in zip(batch, results, strict=True)}
    expected = extractor.extract([image.path for image in images], batch_size=batch_size)
    assert list(found) == images
    for image, regions in zip(images, expected, strict=True):
        support.assert_same_regions(found[image], regions)


def test_only_the_network_is_timed(tmp_path, monkeypatch, extractor, now):
    monkeypatch.setattr(stages, "load", now.turned_by(1, stages.load))
    monkeypatch.setattr(extractor, "to_network", now.turned_by(10, extractor.to_network))
    monkeypatch.setattr(extractor, "network", now.turned_by(100, extractor.network))
    assert network_seconds(extractor, strips(tmp_path, 3), 2) == 200
    assert now.seconds == 223


@contextlib.contextmanager
def naive_count(model):
    """Multiply-accumulates, from the shapes that every layer gives."""
    counts = []

    def count(layer, _, result):
        if isinstance(layer, nn.Linear):
            each = layer.in_features
        else:
            each = layer.in_channels // layer.groups * math.prod(layer.kernel_size)
        counts.append(result.numel() * each)

    layers = [layer for layer in model.modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    yield counts
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize("model", support.TINY_MODELS)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_macs_are_those_of_all_layers(tmp_path, monkeypatch, model, precision):
    # What comes before pooling doesn't call its layer: hooks wouldn't see it.
    monkeypatch.setattr(res5, "BagROIAlign", ())
    extractor = RegionFeatureExtractor(support.tiny_model(model), precision=precision)
    with naive_count(extractor.model) as counts:
        found = count_macs(extractor, strips(tmp_path, 2), 2)
    assert found == sum(counts) > 1e6
    groups = {m.groups for m in extractor.model.modules() if isinstance(m, nn.Conv2d)}
    assert (max(groups) > 1) == ("x152" in model)


def test_the_peak_is_that_of_the_fastest_product(monkeypatch, now):
    durations = iter([9, 4, 2, 3, 4, 5])
    monkeypatch.setattr(torch, "matmul", lambda a, b: now.turned_by(next(durations), int)())
    assert stages.peak_macs_per_second("bf16", torch.device("cpu")) == 2048**3 / 2
