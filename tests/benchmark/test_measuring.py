"""The whole benchmark on a tiny model: what is measured, and how it is reported."""

import io
import json
import mmap

import numpy as np
import pytest
import support
import torch
from benchmarked import strips
from benchmarking import measuring
from benchmarking.chart import png_chart
from benchmarking.machine import describe_machine, peak_memory, reset_peak_memory
from benchmarking.measuring import Configuration, Plan, measure, rates
from benchmarking.precision_price import price
from benchmarking.report import table
from benchmarking.stages import STAGES
from PIL import Image

from reference import goldens
from vmb_d2.errors import ConfigError, ImageReadError
from vmb_d2.extractor import RegionFeatureExtractor
from vmb_d2.structures.input_image import InputImage

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
MIB = 1 << 20


@pytest.fixture
def images(tmp_path):
    return strips(tmp_path / "in", 2)


@pytest.fixture
def loaded():
    return []


@pytest.fixture
def run(monkeypatch, tmp_path, images, loaded):
    """Measure ``images`` with a tiny model, on a machine of a known peak."""
    monkeypatch.setattr(measuring, "peak_macs_per_second", lambda *_: 9e9)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()

    def load(precision):
        loaded.append(precision)
        return RegionFeatureExtractor(support.tiny_model(support.TINY_FPN))

    def run(**plan):
        found = measure(Plan(**{"images": images, "repeats": 2, **plan}), load, CPU)
        assert list((tmp_path / "temporary").iterdir()) == []
        return {"model": "tiny", "weights": "synthetic", **found}

    return run


def test_everything_is_measured(run, loaded):
    found = run(batch_sizes=[1, 2])
    assert loaded == ["fp32"]
    content = json.loads(json.dumps(found, allow_nan=False))
    assert content["images"] == {"count": 2, "padded_sizes": {"32x1344": 2}}
    assert (content["repeats"], content["format"]) == (2, "mmf")
    assert [(c["precision"], c["batch_size"]) for c in content["configurations"]] == [
        ("fp32", 1), ("fp32", 2),
    ]  # fmt: skip
    for c in content["configurations"]:
        assert tuple(c["stages"]) == STAGES
        whole = (c["network"], c["sum_of_stages"], c["end_to_end"])
        for figures in (*c["stages"].values(), *whole):
            spread = figures["seconds"]
            assert 0 < spread["least"] <= spread["median"] <= spread["most"]
            assert spread["repeats"] == 2
            assert figures["images_per_second"] == pytest.approx(1 / spread["median"])
        medians = [figures["seconds"]["median"] for figures in c["stages"].values()]
        spread = c["sum_of_stages"]["seconds"]
        assert spread["least"] <= sum(medians) <= spread["most"]
        rate = c["network"]["macs"] / c["network"]["seconds"]["median"]
        assert c["network"]["macs_per_second"] == pytest.approx(rate)
        assert c["network"]["share_of_peak"] == pytest.approx(rate / 9e9)
        assert c["peak_memory_bytes"]["host"] > 1e8
    assert content["peak_macs_per_second"] == {"fp32": 9e9}
    assert tuple(content["original"]["stages"]) == STAGES
    assert content["original"]["seconds"]["repeats"] == 2
    assert content["machine"]["device"] == "cpu"


def test_an_image_is_the_unit(run, images):
    """An image of two takes as much as one alone."""
    few, many = (run(images=images[:1] * n, parts=["network"])["configurations"] for n in (1, 2))
    assert few[0]["network"]["macs"] == many[0]["network"]["macs"]


@pytest.mark.parametrize(
    ("plan", "precisions", "keys"),
    [
        ({"parts": ["stages"]}, ["fp32"], {"stages", "sum_of_stages"}),
        ({"parts": ["network"], "precisions": ["bf16"]}, ["bf16"], {"network"}),
        ({"parts": ["original", "end_to_end"], "precisions": ["bf16"]}, ["fp32", "bf16"],
         {"end_to_end", "peak_memory_bytes"}),
        ({"parts": ["original"], "precisions": ["bf16"]}, ["fp32"], None),
        ({"parts": []}, [], None),
    ],
)  # fmt: skip
def test_only_what_was_asked_for(run, loaded, plan, precisions, keys):
    found = run(**plan, repeats=1)
    assert loaded == precisions
    measured = plan.get("precisions", ["fp32"]) if keys else []
    assert [c["precision"] for c in found["configurations"]] == measured
    for c in found["configurations"]:
        assert set(c) == {"precision", "batch_size", *keys}
    assert list(found["peak_macs_per_second"]) == measured
    assert ("original" in found) == ("original" in plan["parts"])
    assert table(found).count("batch size") == len(measured)
    assert png_chart(found).startswith(b"\x89PNG")


@pytest.mark.parametrize("part", ["network", "stages", "end_to_end"])
def test_out_of_memory_is_an_error_of_the_batch_size(run, monkeypatch, part):
    def too_much(self, batch, *boxes):
        if len(batch) > 1:
            raise torch.OutOfMemoryError
        return network(self, batch, *boxes)

    network = RegionFeatureExtractor.network
    monkeypatch.setattr(RegionFeatureExtractor, "network", too_much)
    monkeypatch.setattr(Configuration, "warm_up", lambda self: None)
    with pytest.raises(ConfigError, match="batch_sizes=2: the memory doesn't suffice"):
        run(parts=[part], batch_sizes=[2])


def test_other_errors_stay_what_they_are(run, images, monkeypatch):
    images.append(InputImage("no.png", "no"))
    with pytest.raises(ImageReadError, match=r"no\.png"):
        run()
    del images[-1]

    def fail(*args):
        raise RuntimeError("something else")

    monkeypatch.setattr(RegionFeatureExtractor, "network", fail)
    with pytest.raises(RuntimeError, match="something else"):
        run()


@pytest.mark.parametrize(
    ("seconds", "count", "expected"),
    [([3.0], 1, (3, 3, 3)), ([8.0, 2.0, 4.0, 100.0], 2, (3, 1, 50))],
)
def test_rates(seconds, count, expected):
    spread = dict(zip(("median", "least", "most"), expected, strict=True))
    assert rates(seconds, count) == {
        "seconds": {**spread, "repeats": len(seconds)},
        "images_per_second": 1 / expected[0],
    }


def test_the_peak_memory_holds_what_is_gone():
    def fill(size):
        content = mmap.mmap(-1, size)
        content.write(b"x" * size)
        content.close()

    fill(200 * MIB)
    before = peak_memory(CPU)
    assert list(before) == ["host"]
    reset_peak_memory(CPU)
    empty = peak_memory(CPU)["host"]
    fill(100 * MIB)
    after = peak_memory(CPU)["host"]
    assert empty + 90 * MIB < after < before["host"] - 50 * MIB


@pytest.mark.slow
def test_the_price_of_a_precision():
    model = support.tiny_model("tiny_r101_c4")
    images = [str(goldens.image_path("coffee.png"))]
    nothing = price(model, "fp32", images)
    assert nothing["boxes_within_2_px"] == 1
    assert nothing["found"] == {"feature_error": {"median": 0, "worst": 0}, "same_class": 1}
    assert nothing["given"]["same_class"] == 1
    assert nothing["given"]["feature_error"]["worst"] < 2e-5
    some = price(model, "bf16", images)
    assert 0.5 < some["boxes_within_2_px"] < 1
    for kind in ("found", "given"):
        error = some[kind]["feature_error"]
        assert 1e-4 < error["median"] < error["worst"] < 5e-2
        assert some[kind]["same_class"] > 0.95


def figures(median, **more):
    seconds = {"median": median, "least": median / 2, "most": median * 2, "repeats": 3}
    return {"seconds": seconds, "images_per_second": 1 / median, **more}


@pytest.fixture
def made_up():
    """A benchmark whose figures are known."""
    configuration = {
        "precision": "fp32",
        "stages": {**{stage: figures(0.125) for stage in STAGES}, "backbone": figures(0.5)},
        "sum_of_stages": figures(1.375),
        "network": figures(0.75, macs=3e9, macs_per_second=6e9, share_of_peak=0.25),
        "end_to_end": figures(1.25),
        "peak_memory_bytes": {"host": 3 << 20, "gpu": 5 << 20},
    }
    error = {"feature_error": {"median": 0.01, "worst": 0.05}, "same_class": 0.5}
    return {
        "model": "tiny",
        "weights": "synthetic",
        "machine": describe_machine(CPU),
        "images": {"count": 3, "padded_sizes": {"32x1344": 3}},
        "repeats": 2,
        "configurations": [
            {**configuration, "batch_size": 4},
            {**configuration, "batch_size": 1, "end_to_end": figures(2.5)},
        ],
        "peak_macs_per_second": {"fp32": 24e9},
        "original": {**figures(5.0), "stages": {s: figures(0.625) for s in STAGES}},
        "precision_price": {"bf16": {"boxes_within_2_px": 0.75, "found": error, "given": error}},
    }


def test_the_table(made_up):
    lines = [" ".join(line.split()) for line in table(made_up).splitlines()]
    for line in (
        "tiny, weights: synthetic",
        "3 images, padded to: 3 of 32x1344",
        "fp32, batch size 4",
        "decode 0.125 (0.06250 to 0.250) 9.1%",
        "backbone 0.500 (0.250 to 1.000) 36.4%",
        "sum of stages 1.375 (0.688 to 2.750)",
        "network alone 0.750 (0.375 to 1.500) 3 GMAC at 6 GMAC/s, 25% of the peak",
        "end to end 1.250 (0.625 to 2.500) 0.8 images/s; the stages are 110% of it; "
        "4.00 times the original's rate",
        "end to end 2.500 (1.250 to 5.000) 0.4 images/s; the stages are 55% of it; "
        "2.00 times the original's rate",
        "most memory host 3 MiB, gpu 5 MiB",
        "peak 24 GMAC/s in a product of matrices",
        "decode 0.625 (0.312 to 1.250) 12.5%",
        "end to end 5.000 (2.500 to 10.00) 0.2 images/s",
        "bf16 compared with fp32",
        "75.0% of the boxes within 2 px",
        "given boxes features: 1.0e-02 (median), 5.0e-02 (worst); 50.0% of the classes equal",
    ):
        assert line in lines


def test_the_chart_is_a_png(made_up):
    with Image.open(io.BytesIO(png_chart(made_up))) as image:
        assert image.format == "PNG"
        assert image.width > image.height > 400
        assert len(np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)) > 50
