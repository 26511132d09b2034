"""What passes in each stage is put down to it, and the stages are the extraction's own."""

import pytest
import support
import torch
from benchmarked import Clock, strips
from benchmarking import stages
from benchmarking.stages import STAGES, Laps, clock, pass_through

from vmb_d2.data.preprocessing import load
from vmb_d2.errors import ImageReadError
from vmb_d2.extractor import RegionFeatureExtractor
from vmb_d2.structures.input_image import InputImage


@pytest.fixture
def extractor():
    return RegionFeatureExtractor(support.tiny_model(support.TINY_FPN))


def ignore(images, results):
    pass


def test_laps():
    now = Clock()
    laps = Laps(now)
    now.seconds = 3
    laps.end("decode")
    now.seconds = 10
    laps.begin()
    now.seconds = 12
    laps.end("rpn")
    now.seconds = 13
    laps.end("decode")
    assert laps.totals == dict.fromkeys(STAGES, 0) | {"decode": 4, "rpn": 2}


@pytest.mark.parametrize("batch_size", [1, 2])
def test_every_stage_gets_its_own_time(tmp_path, monkeypatch, extractor, batch_size):
    now = Clock()
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
    laps = Laps(now)
    now.seconds += 5000  # before anything begins
    images = strips(tmp_path, 2)
    pass_through(extractor, images, batch_size, laps, now.turned_by(512, ignore))
    assert {stage: seconds * batch_size for stage, seconds in laps.totals.items()} == {
        "decode": 2 * (1 + 2) * batch_size,
        "resize": 2 * 4 * batch_size,
        "transfer": 2 * 8,
        "backbone": 2 * 16,
        "rpn": 2 * 32,
        "roi_head": 2 * (64 + 128),
        "selection": 2 * 256,
        "write": 2 * 512,
    }
    assert sum(laps.totals.values()) == now.seconds - 5000


@pytest.mark.parametrize("batch_size", [1, 2])
def test_the_result_is_the_extractions(tmp_path, extractor, batch_size):
    images = strips(tmp_path, 3) + strips(tmp_path / "higher", 1, height=40)
    written = []
    pass_through(
        extractor,
        images,
        batch_size,
        Laps(Clock()),
        lambda images, results: written.append((images, results)),
    )
    together = {1: [1, 1, 1, 1], 2: [2, 1, 1]}
    assert [len(batch) for batch, _ in written] == together[batch_size]
    found = {i: r for batch, results in written for i, r in zip(batch, results, strict=True)}
    expected = extractor.extract([image.path for image in images], batch_size=batch_size)
    assert list(found) == images
    for image, regions in zip(images, expected, strict=True):
        support.assert_same_regions(found[image], regions)


def test_another_read_out(tmp_path, extractor):
    images, seen = strips(tmp_path, 1), []

    def read_out(regions, loaded):
        seen.append((len(regions), loaded[0].width))
        return ["regions"]

    written = []
    pass_through(extractor, images, 1, Laps(Clock()), lambda *args: written.append(args), read_out)
    assert seen == [(1, load(images[0].path).width)]
    assert written == [(images, ["regions"])]


def test_the_model_is_left_as_it_was(tmp_path, extractor):
    parts = extractor.model.backbone, extractor.model.proposal_generator
    for images in (strips(tmp_path, 1), [InputImage(str(tmp_path / "no.png"), "no")]):
        laps = Laps(Clock())
        try:
            pass_through(extractor, images, 1, laps, ignore)
        except ImageReadError as error:
            assert images[0].path in str(error)
        else:
            assert images[0].name != "no"
        assert [len(part._forward_hooks) for part in parts] == [0, 0]


def test_the_clock_waits_for_a_gpu(monkeypatch):
    waited = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    here, gpu = clock(torch.device("cpu")), torch.device("cuda", 1)
    assert here() <= here()
    assert waited == []
    clock(gpu)()
    assert waited == [gpu]
