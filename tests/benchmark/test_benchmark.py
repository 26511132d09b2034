"""The whole benchmark on a tiny model: everything is measured, in turns, and reported."""

import json
import logging

import numpy as np
import pytest
import support
import torch
from benchmarked import Clock, numbers, strips
from benchmarking import Plan, Runs, json_text, measure, png_chart, start_up, table
from benchmarking.chart import bars, curves
from benchmarking.machine import describe_machine
from benchmarking.made_scores import selection_seconds
from benchmarking.stages import STAGES
from benchmarking.stand_in import stand_in_extractor
from fakes import FakeExtractor, small_images
from PIL import Image

from vmb_d2.engine.job import ExtractionJob
from vmb_d2.errors import ConfigError, ImageReadError, OutputError
from vmb_d2.extractor import RegionFeatureExtractor
from vmb_d2.stores.mmf import MMFReader
from vmb_d2.structures.input_image import InputImage

CPU = torch.device("cpu")
SPREAD = {"median", "least", "most", "repeats"}


@pytest.fixture
def quick(monkeypatch):
    """A small product of matrices, and a small choice of regions."""
    peaks = iter([7e9, 9e9, 8e9, 1e9, 1e9, 1e9, 1e9, 1e9])
    monkeypatch.setattr("benchmarking.measuring.peak_macs_per_second", lambda *_: next(peaks))
    monkeypatch.setattr(
        "benchmarking.measuring.selection_seconds",
        lambda *args: selection_seconds(*args, regions=30, classes=5),
    )


@pytest.fixture
def images(tmp_path):
    return strips(tmp_path / "in", 2)


@pytest.fixture
def loaded():
    return []


@pytest.fixture
def run(tmp_path, quick, images, loaded):
    """Measure ``images`` with a tiny model."""

    def load(precision):
        loaded.append(precision)
        return RegionFeatureExtractor(support.tiny_model(support.TINY_FPN))

    def run(progress=lambda text: None, **plan):
        plan = Plan(**{"images": images, "repeats": 2, **plan})
        folder = tmp_path / "work"
        folder.mkdir(exist_ok=True)
        found = measure(plan, load, CPU, folder, progress)
        assert list(folder.iterdir()) == []
        return {"model": "tiny", "weights": "synthetic", **found}

    return run


def test_everything_is_measured(run, loaded):
    told = []
    found = run(told.append, batch_sizes=[1, 2])
    assert loaded == ["fp32"]
    content = json.loads(json_text(found))
    assert content["images"] == {"count": 2, "padded_sizes": {"32x1344": 2}}
    assert (content["repeats"], content["format"]) == (2, "mmf")
    assert [c["batch_size"] for c in content["configurations"]] == [1, 2]
    for c in content["configurations"]:
        assert c["precision"] == "fp32"
        assert tuple(c["stages"]) == STAGES
        spreads = [figures["seconds"] for figures in c["stages"].values()]
        spreads += [c[k]["seconds"] for k in ("network", "sum_of_stages", "end_to_end")]
        for spread in spreads:
            assert set(spread) == SPREAD
            assert 0 < spread["least"] <= spread["median"] <= spread["most"]
            assert spread["repeats"] == 2
        counted = [s for s in STAGES if "macs" in c["stages"][s]]
        assert counted == ["backbone", "rpn", "roi_head"]
        assert c["network"]["macs"] == sum(c["stages"][s]["macs"] for s in counted)
        medians = [figures["seconds"]["median"] for figures in c["stages"].values()]
        whole = c["sum_of_stages"]["seconds"]
        assert whole["least"] <= sum(medians) <= whole["most"]
        for figures in (c["network"], *(c["stages"][s] for s in counted)):
            rate = figures["macs"] / figures["seconds"]["median"]
            assert figures["macs_per_second"] == pytest.approx(rate)
            assert figures["share_of_peak"] == pytest.approx(rate / 9e9)
        for kind in ("network", "end_to_end"):
            rate = 1 / c[kind]["seconds"]["median"]
            assert c[kind]["images_per_second"] == pytest.approx(rate)
            assert c["peak_memory_bytes"][kind]["host"] > 1e8
    assert content["peak_macs_per_second"] == {"fp32": 9e9}
    assert tuple(content["original"]["stages"]) == STAGES
    assert content["original"]["seconds"]["repeats"] == 2
    assert content["selection"]["flat"]["same"] is True
    assert content["machine"]["device"] == "cpu"
    assert [number for way, number in numbers(content) if number < 0] == []
    turns = ["fp32, batch size 1", "fp32, batch size 2", "the original's loop"]
    expected = [f"{turn}: warming up" for turn in turns]
    expected += [f"{turn}: {n} of 2" for n in (1, 2) for turn in turns]
    assert told[:10] == ["fp32: loading the model", *expected]


def test_an_image_is_the_unit(run, images):
    """An image of two takes as much as one alone."""
    few, many = (run(images=images[:1] * n, parts=["network"])["configurations"] for n in (1, 2))
    assert few[0]["network"]["macs"] == many[0]["network"]["macs"]


@pytest.mark.parametrize(
    ("plan", "precisions", "keys"),
    [
        ({"parts": ["stages"]}, ["fp32"], {"stages", "sum_of_stages"}),
        ({"parts": ["network"], "precisions": ["bf16", "bf16"]}, ["bf16"], {"network"}),
        ({"parts": ["original", "end_to_end"], "precisions": ["tf32", "fp16"]},
         ["tf32", "fp16", "fp32"], {"end_to_end"}),
    ],
)  # fmt: skip
def test_only_what_was_asked_for(run, loaded, plan, precisions, keys):
    found = run(**plan, repeats=1)
    assert loaded == precisions
    measured = list(dict.fromkeys(plan.get("precisions", ["fp32"])))
    assert [c["precision"] for c in found["configurations"]] == measured
    for c in found["configurations"]:
        assert set(c) == {"precision", "batch_size", "peak_memory_bytes", *keys}
    assert list(found["peak_macs_per_second"]) == measured
    assert ("original" in found) == ("original" in plan["parts"])
    assert "selection" not in found
    assert table(found).count("batch size") == len(measured)
    assert png_chart(found).startswith(b"\x89PNG")


def test_nothing_is_loaded_for_nothing(run, loaded):
    for parts in ([], ["selection"]):
        found = run(parts=parts, repeats=1)
        assert loaded == found["configurations"] == []
        assert ("selection" in found) == bool(parts)
        assert table(found).startswith("tiny, weights: synthetic\n")
        assert png_chart(found).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"repeats": 0}, "--repeats=0: has to be at least 1"),
        ({"batch_sizes": [2, 0]}, "--batch-sizes=0: has to be at least 1"),
        ({"precisions": ["int8"]}, "--precision=int8: valid are fp32, tf32, bf16, fp16"),
        ({"parts": ["all"]}, "no part all: valid are network, stages"),
    ],
)
def test_plans_out_of_range(values, expected):
    with pytest.raises(ConfigError, match=expected):
        Plan([], **values)


@pytest.mark.parametrize("parts", [["network"], ["stages"], ["end_to_end"]])
def test_out_of_memory_is_one_line(run, monkeypatch, parts):
    def too_much(self, batch, *boxes):
        self.calls = getattr(self, "calls", 0) + 1
        if self.calls > 3 and len(batch) > 1:  # not yet while warming up
            raise torch.OutOfMemoryError
        return network(self, batch, *boxes)

    network = RegionFeatureExtractor.network
    monkeypatch.setattr(RegionFeatureExtractor, "network", too_much)
    run(parts=parts, batch_sizes=[1])
    with pytest.raises(ConfigError, match="--batch-sizes=2: the memory doesn't do"):
        run(parts=parts, batch_sizes=[1, 2])


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


def test_end_to_end_is_a_run_of_the_job(tmp_path, images, caplog):
    extractor = RegionFeatureExtractor(support.tiny_model(support.TINY_FPN))
    caplog.set_level(logging.INFO)
    seconds = Runs(batch_size=2).seconds(extractor, images, tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["counts"] == {"images": 2, "done": 2, "failed": 0}
    assert manifest["runs"][0]["batch_size"] == 2
    assert 0 < seconds < manifest["runs"][0]["seconds"] + 1
    expected = extractor.extract([image.path for image in images], batch_size=2)
    for image, regions in zip(images, expected, strict=True):
        found = MMFReader(tmp_path / "out").read(image.name)
        support.assert_same_regions(found, regions, but=["confidence"])
    assert caplog.messages == []
    assert logging.getLogger("vmb_d2").level == logging.NOTSET
    broken = [*images, InputImage(str(tmp_path / "no.png"), "no")]
    with pytest.raises(ConfigError, match="--images: 1 of 3 can't be extracted"):
        Runs().seconds(extractor, broken, tmp_path / "broken")
    Runs("hdf5").seconds(extractor, images, tmp_path / "hdf5")
    assert (tmp_path / "hdf5" / "features.h5").is_file()


def test_loading_is_no_part_of_it(tmp_path, monkeypatch):
    now = Clock()
    images = small_images(tmp_path / "in", 3)
    extractor = FakeExtractor(before_batch=now.turned_by(5, lambda batch: None))
    job = ExtractionJob(tmp_path / "out")
    monkeypatch.setattr("time.perf_counter", now)
    assert job(images, now.turned_by(100, lambda: extractor)).seconds == 15
    assert job(images, lambda: extractor).seconds == 0


def test_endurance(tmp_path, images):
    extractor = stand_in_extractor(support.description(support.TINY_FPN))
    found = Runs().endurance(extractor, images, tmp_path / "out")
    assert found["images"] == 2
    assert found["seconds"] > 0
    assert found["memory_bytes"]["own"]["end"] > 1e8
    content = {"network": "a stand-in", **found, "memory_bytes": {
        "own": {"start": 1 << 20, "middle": 2 << 20, "end": 3 << 20, "peak": 4 << 20},
        "started": {"start": 0, "middle": 0, "end": 0, "peak": 0},
    }}  # fmt: skip
    lines = list(table_of(endurance=content))
    assert lines[-2].startswith("memory over 2 images with a stand-in, ")
    assert " ".join(lines[-1].split()) == "this process start 1, middle 2, end 3, peak 4 MiB"


def table_of(**content):
    """The table of a benchmark of nothing, with what is given."""
    nothing = {
        "model": "tiny",
        "weights": "synthetic",
        "machine": describe_machine(CPU),
        "images": {"count": 3, "padded_sizes": {"32x1344": 3}},
        "repeats": 2,
        "configurations": [],
        "peak_macs_per_second": {},
    }
    return table({**nothing, **content}).splitlines()


def test_start_up(tmp_path):
    """The program does as tools/extract.py: its first run makes a file, its second is shorter."""
    calls = []

    def command(folder):
        calls.append(folder)
        return ["sh", "-c", f"test -e {folder} || {{ sleep 0.3; touch {folder}; }}"]

    told = []
    found = start_up(command, tmp_path, 2, told.append)
    assert calls == [tmp_path / "0", tmp_path / "0", tmp_path / "1", tmp_path / "1"]
    assert told[0] == "start-up, one image, 1 of 2"
    assert found["one_image"]["least"] >= 0.3
    assert found["one_image"]["repeats"] == found["nothing_to_do"]["repeats"] == 2
    assert found["nothing_to_do"]["least"] < found["one_image"]["least"]
    failing = ["sh", "-c", "echo first >&2; echo error: no >&2; exit 2"]
    with pytest.raises(OutputError, match=r"^--startup: error: no \(exit status 2\)$"):
        start_up(lambda folder: failing, tmp_path, 1)
    with pytest.raises(OutputError, match="no reason given"):
        start_up(lambda folder: ["false"], tmp_path, 1)


def figures(median, **more):
    seconds = {"median": median, "least": median / 2, "most": median * 2, "repeats": 3}
    return {"seconds": seconds, "images_per_second": 1 / median, **more}


def made_up():
    """A benchmark whose figures are known."""
    stages = {stage: figures(0.125) for stage in STAGES}
    arithmetic = {"macs": 3e9, "macs_per_second": 6e9, "share_of_peak": 0.25}
    stages["backbone"] = figures(0.5, **arithmetic)
    configuration = {
        "precision": "fp32",
        "stages": stages,
        "sum_of_stages": {"seconds": figures(1.375)["seconds"]},
        "network": figures(0.75, **arithmetic),
        "end_to_end": figures(1.25),
        "peak_memory_bytes": {"end_to_end": {"host": 3 << 20, "gpu": 5 << 20}},
    }
    kinds = {"ours": figures(2.0)["seconds"], "original": figures(12.0)["seconds"], "same": True}
    return {
        "configurations": [
            {**configuration, "batch_size": 4},
            {**configuration, "batch_size": 1, "end_to_end": figures(2.5)},
        ],
        "peak_macs_per_second": {"fp32": 24e9},
        "original": {**figures(5.0), "stages": {s: figures(0.625) for s in STAGES}},
        "selection": {
            "regions": 10,
            "classes": 20,
            "peaked": kinds,
            "flat": kinds,
            "equal": {**kinds, "same": False},
        },
        "start_up": {"one_image": figures(8.0)["seconds"]},
    }


def test_the_table_says_it_all():
    lines = [" ".join(line.split()) for line in table_of(**made_up())]
    for line in (
        "3 images, padded to: 3 of 32x1344",
        "fp32, batch size 4",
        "decode 0.125 (0.06250 to 0.250) 9.1%",
        "backbone 0.500 (0.250 to 1.000) 36.4% 3 GMAC at 6 GMAC/s, 25% of the peak",
        "sum of stages 1.375 (0.688 to 2.750)",
        "network alone 0.750 (0.375 to 1.500) 3 GMAC at 6 GMAC/s, 25% of the peak",
        "end to end 1.250 (0.625 to 2.500) 0.8 images/s; the stages are 110% of it; "
        "4.00 times the original's rate",
        "end to end 2.500 (1.250 to 5.000) 0.4 images/s; the stages are 55% of it; "
        "2.00 times the original's rate",
        "most memory end to end: host 3 MiB, gpu 5 MiB",
        "peak 24 GMAC/s in a product of matrices",
        "decode 0.625 (0.312 to 1.250) 12.5%",
        "end to end 5.000 (2.500 to 10.00) 0.2 images/s",
        "choice of regions by itself, 10 regions x 20 classes, seconds",
        "flat scores 2.000 (1.000 to 4.000) the original's 12.00 (6.000 to 24.00)",
        "6 times as fast, the same result",
        "6 times as fast, ANOTHER RESULT",
        "one image 8.000 (4.000 to 16.00)",
    ):
        assert line in lines


def test_the_chart_shows_it_all():
    content = made_up()
    stages = [0.125] * len(STAGES)
    stages[STAGES.index("backbone")] = 0.5
    assert bars(content) == {
        "fp32, 4": stages,
        "fp32, 1": stages,
        "the original's loop": [0.625] * len(STAGES),
    }
    assert curves(content) == {
        ("fp32", "network"): [(1, 1 / 0.75), (4, 1 / 0.75)],
        ("fp32", "end_to_end"): [(1, 0.4), (4, 0.8)],
    }


def test_the_chart_is_a_png(tmp_path):
    content = {"model": "tiny", "machine": {"device_name": "a machine"}, **made_up()}
    (tmp_path / "chart.png").write_bytes(png_chart(content))
    with Image.open(tmp_path / "chart.png") as image:
        assert image.format == "PNG"
        assert image.width > image.height > 400
        assert len(np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)) > 50
