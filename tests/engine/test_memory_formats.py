"""Memory formats of a run: measured once where it is long, recorded, and taken again."""

import logging

import pytest
import torch
from fakes import FakeExtractor, small_images
from jobs import manifest, run

from vmb_d2.engine import memory_format
from vmb_d2.engine.upload import Uploader

FORMATS = {"stem": "contiguous", "res2": "channels_last"}
LONG = 6  # images


class Measured(FakeExtractor):
    """On a device that passes for a GPU."""

    def __init__(self, device="cuda", **values):
        super().__init__(**values)
        self.model.device = torch.device(device)
        self.layer_by_layer = False
        self.measured, self.used = [], []

    def fastest_memory_formats(self, image, batch_size):
        self.measured.append((image.width, batch_size))
        return FORMATS

    def use_memory_formats(self, formats):
        self.used.append(formats)


@pytest.fixture
def images(tmp_path, monkeypatch):
    monkeypatch.setattr(memory_format, "LONG_RUN", LONG)
    monkeypatch.setattr(Uploader, "stream", None)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "a GPU")
    return small_images(tmp_path / "in", LONG + 2)


def start(out, images, extractor, **values):
    run(out, images, extractor, workers=0, formats=["mmf"], **values)
    return manifest(out)["runs"][-1]


@pytest.mark.parametrize(("batch_size", "measured"), [(2, 2), (9, 4)])
def test_a_long_run_measures_before_its_first_batch(out, images, batch_size, measured):
    """On the first image that can be read."""
    open(images[0].path, "w").close()
    extractor = Measured()
    record = start(out, images, extractor, batch_size=batch_size)
    assert extractor.measured == [(8, measured)]
    assert extractor.used == [record["memory_formats"]] == [FORMATS]
    assert record["cudnn"] == {"benchmark": False, "deterministic": True}


def test_a_later_run_takes_what_is_recorded(out, images):
    start(out, images[:-2], Measured())
    again, other = Measured(), Measured(precision="bf16")
    start(out, images[:-1], again)
    assert (again.measured, again.used) == ([], [FORMATS])
    record = start(out, images, other, allow_mismatch=True)
    assert (other.used, record["memory_formats"]) == ([], None)


@pytest.mark.parametrize("case", ["few images", "cpu", "layer by layer"])
def test_where_nothing_is_measured(out, images, case):
    extractor = Measured("cpu" if case == "cpu" else "cuda")
    extractor.layer_by_layer = case == "layer by layer"
    record = start(out, images[: LONG - 1] if case == "few images" else images, extractor)
    assert (extractor.measured, extractor.used, record["memory_formats"]) == ([], [], None)


def test_out_of_memory_leaves_them_as_they_are(out, images, caplog):
    class Small(Measured):
        def fastest_memory_formats(self, image, batch_size):
            raise torch.OutOfMemoryError("CUDA out of memory")

    extractor = Small()
    with caplog.at_level(logging.WARNING):
        assert start(out, images, extractor)["memory_formats"] is None
    assert manifest(out)["counts"]["done"] == len(images)
    assert "out of memory while they were measured" in caplog.text
