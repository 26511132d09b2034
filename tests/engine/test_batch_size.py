"""Batch sizes: the estimate for ``auto``, and memory that runs out."""

import pytest
import torch
from fakes import FakeExtractor, small_images
from jobs import everything, failures, manifest, run
from PIL import Image

from vmb_d2.config.input_step import MMF_INPUT
from vmb_d2.engine.upload import Uploader
from vmb_d2.utils.devices import estimated_batch_size

GB = 10**9


@pytest.fixture
def images(tmp_path):
    return small_images(tmp_path / "in", 20)


def gpu(monkeypatch, free, unused=0, index=0):
    """Make PyTorch tell of a GPU with ``free`` bytes, and ``unused`` ones that it has reserved."""
    answers = {
        "mem_get_info": (free, 80 * GB),
        "memory_reserved": 2 * GB + unused,
        "memory_allocated": 2 * GB,
        "get_device_name": "none",
    }

    def answer(name):
        def call(device):
            assert torch.device(device).index == index
            return answers[name]

        return call

    for name in answers:
        monkeypatch.setattr(torch.cuda, name, answer(name))
    monkeypatch.setattr(Uploader, "stream", None)
    return torch.device("cuda", index)


@pytest.mark.parametrize(
    ("free", "unused", "precision", "images", "expected"),
    [
        (9 * GB, 0, "fp32", 1000, 8),
        (9 * GB, 0, "bf16", 1000, 16),
        (5 * GB, 4 * GB, "fp32", 1000, 8),
        (9 * GB, 0, "fp32", 3, 3),
        (80 * GB, 0, "fp32", 1000, 16),
        (GB // 2, 0, "fp32", 1000, 1),
    ],
)
def test_the_estimate(monkeypatch, free, unused, precision, images, expected):
    device = gpu(monkeypatch, free, unused, index=1)
    assert estimated_batch_size(device, precision, images) == expected


def test_on_the_cpu_it_is_one(out, images, caplog):
    caplog.set_level("INFO")
    extractor = FakeExtractor()
    assert run(out, images, extractor, batch_size="auto").extracted == 20
    assert extractor.batches == [1] * 20
    assert manifest(out)["runs"][0]["batch_size"] == 1
    assert "batch size: 1, as an estimate of what memory allows" in caplog.messages


def out_of_memory(most):
    def check(batch):
        if len(batch) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    return check


@pytest.mark.parametrize("asked", [8, "auto"])
def test_out_of_memory_is_tried_again_smaller_and_noted(
    tmp_path, out, images, asked, monkeypatch, caplog
):
    extractor = FakeExtractor(before_batch=out_of_memory(3))
    if asked == "auto":
        extractor.model.device = gpu(monkeypatch, 9 * GB)
    counts = run(out, images, extractor, batch_size=asked, workers=0)
    assert (counts.extracted, counts.failed, counts.out_of_memory) == (20, 0, 2)
    assert extractor.batches == [2] * 10  # 8, 4 and from then on 2
    assert "out of memory with 8 images at once: from now on at most 4" in caplog.text
    (found,) = manifest(out)["runs"]
    assert (found["out_of_memory"], found["batch_size"]) == (2, 8)
    run(tmp_path / "undisturbed", images)
    assert everything(out) == everything(tmp_path / "undisturbed")


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail] . DefaultCPUAllocator: can't allocate memory: you tried to"),
    ],
)
def test_an_image_for_which_no_memory_does_is_a_failure(out, images, error):
    def check(batch):
        if batch[0].width == 9:
            raise error

    Image.new("RGB", (9, 6)).save(images[2].path)
    extractor = FakeExtractor(before_batch=check)
    counts = run(out, images, extractor, formats=["mmf"])
    assert (counts.extracted, counts.failed) == (19, 1)
    (failure,) = failures(out)
    assert (failure["name"], failure["stage"]) == ("image_002", "network")
    height, width = MMF_INPUT.padded_size(MMF_INPUT.short_side, 1200)
    assert failure["reason"] == f"out of memory at {width} x {height} network pixels"


def test_another_error_of_the_network_ends_the_run(out, images):
    def fail(batch):
        if len(extractor.batches) == 2:
            raise RuntimeError("CUDA error: device-side assert triggered")

    extractor = FakeExtractor(before_batch=fail)
    with pytest.raises(RuntimeError, match="device-side assert"):
        run(out, images, extractor, formats=["mmf"])
    assert manifest(out)["runs"][-1]["state"] == "failed"
    assert manifest(out)["counts"]["done"] == 2


def test_a_run_may_go_on_with_another_number(out, images):
    for part, batch_size in ((images[:7], 3), (images, "auto")):
        run(out, part, batch_size=batch_size, formats=["mmf"])
    assert [r["mismatch"] for r in manifest(out)["runs"]] == [[], []]
