"""The steps themselves, on the CPU with tiny models."""

import dataclasses
import os

import numpy as np
import pytest
import support
import torch
from benchmarked import strips
from benchmarking import measuring
from gpu_steps import kernels, parity, precisions, selection, speed
from gpu_steps.device_tests import FOLDERS, run_tests
from gpu_steps.networks import Networks

from reference import goldens, models

CPU = torch.device("cpu")
TINY = "tiny_r101_c4"
networks = Networks(CPU)


def test_one_network_is_on_the_device(monkeypatch):
    def make(name, device):
        made.append(name)
        return torch.nn.Linear(1, 1, device=device)

    made, device = [], torch.device("meta")
    monkeypatch.setattr(models, "network", make)
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, where: places.append(where))
    own, places = Networks(device), []
    first = own("a")
    assert own("b") is not first
    assert places == ["cpu"]  # a
    assert own("a") is first
    assert places == ["cpu", device, "cpu"]  # a, b
    assert made == ["a", "b"]


@pytest.fixture(scope="module")
def golden():
    ((path, _, _),) = goldens.find(rf"{TINY}\.seed0\.bs1\.coffee")
    with np.load(path) as file:
        return dict(file)


def met(golden, found, image="coffee.png", tag="bs1"):
    return parity.compare(golden, found, tag, image)["met"]


def test_a_golden_is_its_own(golden):
    own = goldens.regions_of(golden)
    result = parity.compare(golden, own, "bs1", "coffee.png")
    assert result.pop("met")
    figures = {"regions": 100, "matched": 100, "box": 0, "features": 0, "same_class": 100}
    assert result == {**figures, "same_count": True}


def test_the_order_of_regions_does_not_matter(golden):
    own = goldens.regions_of(golden)
    order = np.arange(100)[::-1]
    rows = {name: getattr(own, name)[order] for name in ("features", "bbox", "objects")}
    assert met(golden, dataclasses.replace(own, **rows))


@pytest.mark.parametrize("change", ["box", "feature", "class", "count", "fewer"])
def test_a_mistake_is_noticed(golden, change):
    own = goldens.regions_of(golden)
    boxes, features, classes = own.bbox.copy(), own.features.copy(), own.objects.copy()
    boxes[3, 1] += 0.5 * (change == "box")
    features[3] *= 1 + 1e-4 * (change == "feature")
    classes[3] += change == "class"
    rows = slice(99 if change == "fewer" else 100)
    count = own.num_boxes - (change == "count")
    values = {"bbox": boxes[rows], "features": features[rows], "objects": classes[rows]}
    found = dataclasses.replace(own, **values, num_boxes=count)
    assert not met(golden, found)
    assert met(golden, found, image="horse.png") == (change == "box")


def test_regions_of_one_box_are_told_apart_by_their_classes(golden):
    """As read-outs have them that take a proposal once for each class."""
    doubled = {name: golden[name].copy() for name in ("bbox", "features", "objects")}
    doubled["bbox"][1] = doubled["bbox"][0]
    doubled["objects"][:2] = 5, 6
    own = dataclasses.replace(goldens.regions_of(golden), **doubled)
    order = np.r_[1, 0, 2:100]
    swapped = {name: values[order] for name, values in doubled.items()}
    result = parity.compare({**golden, **doubled}, dataclasses.replace(own, **swapped), "bs1", "")
    assert (result["matched"], result["same_class"], result["features"]) == (100, 100, 0)


@pytest.mark.parametrize("pattern", ["tiny_vinvl", "tiny_frcnn_vg", "tiny_bua", "tiny_x152_fpn"])
def test_every_kind_of_golden_is_read(pattern):
    for path, _, _ in goldens.find(pattern):
        with np.load(path) as file:
            boxes, features, classes = parity.expected(file)
        assert len(boxes) == len(classes)
        assert features is None or len(features) == len(boxes)


@pytest.mark.slow
def test_parity():
    cases = parity.parity_step([TINY], ["tiny_x152_c4"], networks).cases
    assert list(cases) == [TINY, "tiny_x152_c4 batches"]
    found = cases[TINY]()
    assert found["met"]
    assert found["convention"] == "vmb"
    assert [g["golden"].split(".")[-2:] for g in found["goldens"]] == [
        ["coffee", "png"],
        ["rocket", "jpg"],
    ]
    assert found["summary"].startswith("2 of 2 goldens as demanded; 200 of 200 boxes, ")


@pytest.mark.slow
def test_batches(monkeypatch):
    monkeypatch.setattr(parity, "BATCH", ("coffee.png", "camera.png"))
    monkeypatch.setattr(parity, "SHUFFLED", (1, 0))
    found = parity.batches(TINY, networks)
    assert found["met"]
    assert [(b["batch_size"], b["shuffled"]) for b in found["batches"]] == [
        (2, False), (5, False), (5, True),
    ]  # fmt: skip
    assert {(b["regions"], b["matched"]) for b in found["batches"]} == {(200, 200)}


@pytest.mark.slow
def test_speed(tmp_path, monkeypatch):
    monkeypatch.setattr(measuring, "peak_macs_per_second", lambda *_: 9e9)
    counts = speed.Counts(2, 1, 1, 1, (1,))
    own = speed.Speed(networks, strips(tmp_path / "in", 2), counts)
    step = own.step([TINY, "tiny_x152_c4"])
    assert list(step.cases) == [
        *(f"{TINY} {what}" for what in ("fp32", "bf16", "original")),
        *(f"{TINY} {precision} batch sizes" for precision in ("fp32", "bf16")),
        *(f"tiny_x152_c4 {what}" for what in ("fp32", "bf16", "original")),
    ]
    rates = step.cases[f"{TINY} bf16"]()
    assert rates["images"] == {"network": 1, "end_to_end": 2}
    configuration = rates["configuration"]
    assert (configuration["precision"], configuration["batch_size"]) == ("bf16", 1)
    for part in ("network", "sum_of_stages", "end_to_end"):
        assert configuration[part]["images_per_second"] > 0
    assert list(step.cases[f"{TINY} original"]()["original"]["stages"])[:2] == ["decode", "resize"]
    sizes = step.cases[f"{TINY} fp32 batch sizes"]()["sizes"]
    assert [size["batch_size"] for size in sizes] == [1]


@pytest.mark.slow
def test_precision(monkeypatch):
    monkeypatch.setattr(precisions, "PHOTOGRAPHS", ("coffee.png",))
    step = precisions.precision_step([TINY], ["fp32", "bf16"], networks)
    assert list(step.cases) == [f"{TINY} bf16"]
    found = step.cases[f"{TINY} bf16"]()
    assert 0.5 < found["near"] < 1
    assert 1e-3 < found["given_features_median"] < found["given_features_worst"] < 5e-2
    assert found["given_same_class"] > 0.9


def test_the_price_of_what_is_known():
    """Of three boxes one is 3 px away; of the others one has another class, and a feature twice."""
    own = support.some_regions(count=3)
    boxes, features, classes = own.bbox.copy(), own.features.copy(), own.objects.copy()
    boxes[0] += 3
    boxes[1] += 1.5
    features[1] *= 2
    classes[2] += 1
    other = dataclasses.replace(own, bbox=boxes, features=features, objects=classes)
    found = precisions.figures([(own, own)], [(other, own)])
    assert found["near"] == pytest.approx(2 / 3)
    assert found["features_median"] == pytest.approx(0.5)
    assert found["features_worst"] == pytest.approx(1)
    assert found["same_class"] == 0.5
    assert (found["given_features_worst"], found["given_same_class"]) == (0, 1)


@pytest.mark.parametrize(
    ("kind", "least", "most"), [("peaked", 0.5, 1), ("flat", 6e-4, 7e-4), ("equal", 6e-4, 7e-4)]
)
def test_made_up_scores(kind, least, most):
    boxes, scores = selection.made_up(kind, 0)
    assert boxes.shape == (1000, 4)
    assert scores.shape == (1000, 1600)
    highest = scores.amax(dim=1)
    assert least < highest.median() < most
    assert (len(highest.unique()) == 1) == (kind == "equal")


@pytest.mark.slow
def test_selection():
    step = selection.selection_step(CPU, repeats=1)
    found = step.cases["equal"]()
    assert list(found["milliseconds"]) == ["1", "8"]
    assert min(found["milliseconds"].values()) > 0


@pytest.mark.slow
def test_kernels(monkeypatch):
    monkeypatch.setattr(kernels, "PHOTOGRAPHS", ("coffee.png",))
    monkeypatch.setattr(kernels, "REPEATS", 2)
    monkeypatch.setattr(kernels, "MOST_MEASURED", 1)
    small = models.description(TINY).with_input({"short_side": 160})
    monkeypatch.setattr(models, "description", lambda name: small)
    step = kernels.kernels_step(TINY, ["fp32", "bf16"], networks)
    assert list(step.cases) == [
        f"{TINY} {what}" for what in ("fp32 cuDNN", "fp32 memory formats", "bf16 cuDNN")
    ]
    before = torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic
    found = step.cases[f"{TINY} fp32 cuDNN"]()
    assert (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic) == before
    assert found["met"]
    assert [(s["benchmark"], s["deterministic"]) for s in found["settings"]] == [
        (False, False), (False, True), (True, False), (True, True),
    ]  # fmt: skip
    assert all(s["equal"] and s["milliseconds"] > 0 for s in found["settings"])
    found = step.cases[f"{TINY} fp32 memory formats"]()
    assert found["met"]
    assert set(found["formats"].values()) <= {"contiguous", "channels_last"}
    assert found["matched"] == found["regions"] == 100


def test_a_network_that_changes_from_run_to_run_is_noticed(monkeypatch):
    passes = iter([("a", 1.0), ("a", 1.0), ("b", 1.0)] * 4)
    monkeypatch.setattr(kernels, "_pass", lambda *_: next(passes))
    found = kernels.cudnn(networks.extractor(TINY))
    assert not found["met"]
    assert not any(s["equal"] for s in found["settings"])


TESTS = """
import pytest
@pytest.mark.gpu
def test_good(): pass
@pytest.mark.gpu
def test_bad(): assert 1 == 2
@pytest.mark.gpu
def test_none(): pytest.skip("needs a GPU")
def test_of_no_gpu(): pass
"""


@pytest.mark.slow
def test_outcomes_of_tests(tmp_path):
    (tmp_path / "test_made_up.py").write_text(TESTS)
    found = run_tests([tmp_path], os.environ)
    assert not found["met"]
    assert found["summary"] == "1 passed, 1 failed, 1 skipped (needs a GPU)"
    assert [(test["test"], test["outcome"]) for test in found["tests"]] == [
        ("test_good", "passed"),
        ("test_bad", "failed"),
        ("test_none", "skipped"),
    ]
    (tmp_path / "test_made_up.py").write_text("nonsense")
    with pytest.raises(RuntimeError, match="pytest ended with 2"):
        run_tests([tmp_path], os.environ)


def test_all_tests_of_a_gpu_are_where_they_are_looked_for():
    folder = support.ROOT / "tests"
    marked = [path for path in folder.rglob("test_*.py") if "pytest.mark.gpu" in path.read_text()]
    own = folder / "gpu_steps"  # in the text of a made-up test
    assert {path.parent for path in marked} - {own} == set(FOLDERS)
