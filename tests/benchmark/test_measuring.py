"""The whole benchmark on a tiny model: what is measured, and how it is reported."""

import json
import mmap

import pytest
import support
import torch
from benchmarked import strips
from benchmarking import measuring
from benchmarking.machine import describe_machine, peak_memory, reset_peak_memory
from benchmarking.measuring import Configuration, Plan, measure, rates
from benchmarking.report import table
from benchmarking.stages import STAGES

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
    support.scratch()  # made before the folder of temporary files is another
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()

    def load(precision, layer_by_layer):
        loaded.append(precision)
        return RegionFeatureExtractor(support.tiny_model(support.TINY_FPN))

    def run(**plan):
        found = measure(Plan(**{"images": images, "repeats": 2, **plan}), load, CPU)
        assert list((tmp_path / "temporary").iterdir()) == []
        return {"model": "tiny", "weights": "synthetic", **found}

    return run


def test_everything_is_measured(run, loaded):
    found = run(batch_sizes=[1, 2])
    assert loaded == ["fp32", "fp32"]  # ours and the original's
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


@pytest.mark.parametrize(
    ("plan", "precisions", "keys"),
    [
        ({"parts": ["stages"]}, ["fp32"], {"stages", "sum_of_stages"}),
        ({"parts": ["network"], "precisions": ["bf16"]}, ["bf16"], {"network"}),
        ({"parts": ["original", "end_to_end"], "precisions": ["bf16"]}, ["fp32", "fp32", "bf16"],
         {"end_to_end", "peak_memory_bytes"}),
    ],
)  # fmt: skip
def test_only_what_was_asked_for(run, loaded, plan, precisions, keys):
    found = run(**plan, repeats=1)
    assert loaded == precisions
    measured = plan.get("precisions", ["fp32"])
    assert [c["precision"] for c in found["configurations"]] == measured
    for c in found["configurations"]:
        assert set(c) == {"precision", "batch_size", *keys}
    assert list(found["peak_macs_per_second"]) == measured
    assert ("original" in found) == ("original" in plan["parts"])
    assert table(found).count("batch size") == len(measured)


def test_out_of_memory_is_an_error_of_the_batch_size(run, monkeypatch):
    def too_much(self, batch, *boxes):
        if len(batch) > 1:
            raise torch.OutOfMemoryError
        return network(self, batch, *boxes)

    network = RegionFeatureExtractor.network
    monkeypatch.setattr(RegionFeatureExtractor, "network", too_much)
    monkeypatch.setattr(Configuration, "warm_up", lambda self: None)
    with pytest.raises(ConfigError, match="batch_sizes=2: the memory doesn't suffice"):
        run(parts=["end_to_end"], batch_sizes=[2])


def test_an_image_that_cant_be_read_is_an_error(run, images):
    images.append(InputImage("no.png", "no"))
    with pytest.raises(ImageReadError, match=r"no\.png"):
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


def figures(median, **more):
    seconds = {"median": median, "least": median / 2, "most": median * 2, "repeats": 3}
    return {"seconds": seconds, "images_per_second": 1 / median, **more}


def test_the_table():
    configuration = {
        "precision": "fp32",
        "batch_size": 4,
        "stages": {**{stage: figures(0.125) for stage in STAGES}, "backbone": figures(0.5)},
        "sum_of_stages": figures(1.375),
        "network": figures(0.75, macs=3e9, macs_per_second=6e9, share_of_peak=0.25),
        "end_to_end": figures(1.25),
        "peak_memory_bytes": {"host": 3 << 20, "gpu": 5 << 20},
    }
    made_up = {
        "model": "tiny",
        "weights": "synthetic",
        "machine": describe_machine(CPU),
        "images": {"count": 3, "padded_sizes": {"32x1344": 3}},
        "repeats": 2,
        "configurations": [configuration],
        "peak_macs_per_second": {"fp32": 24e9},
        "original": {**figures(5.0), "stages": {s: figures(0.625) for s in STAGES}},
    }
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
        "most memory host 3 MiB, gpu 5 MiB",
        "peak 24 GMAC/s in a product of matrices",
        "decode 0.625 (0.312 to 1.250) 12.5%",
        "end to end 5.000 (2.500 to 10.00) 0.2 images/s",
    ):
        assert line in lines
