"""What a benchmark's figures are made of: statistics, memory, made-up scores and weights."""

import mmap
import subprocess
import sys
from array import array

import numpy as np
import pytest
import support
import torch
from benchmarked import Clock, strips
from benchmarking import made_scores, original
from benchmarking.made_scores import KINDS, made_boxes, selection_seconds
from benchmarking.memory import (
    MemoryWatch,
    course,
    descendants,
    forget_peak,
    peak_bytes,
    resident_bytes,
)
from benchmarking.random_weights import write_random_weights
from benchmarking.spread import Spread
from benchmarking.stand_in import stand_in_extractor
from benchmarking.workload import padded_sizes, repeated, temporary_folder

from vmb_d2.checkpoint.pretrained import fingerprint, load_described_model
from vmb_d2.errors import CheckpointError, OutputError
from vmb_d2.extractor import RegionFeatureExtractor
from vmb_d2.selection.options import RegionOptions
from vmb_d2.structures import box_geometry
from vmb_d2.structures.input_image import InputImage

CPU = torch.device("cpu")
MIB = 1 << 20


@pytest.mark.parametrize(
    ("values", "divisor", "expected"),
    [
        ([3.0], 1, (3, 3, 3, 1)),
        ([5.0, 1.0, 9.0], 1, (5, 1, 9, 3)),
        ([8.0, 2.0, 4.0, 100.0], 2, (3, 1, 50, 4)),
    ],
)
def test_spread(values, divisor, expected):
    assert Spread.of(values, divisor) == Spread(*expected)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([7], (7, 7, 7, 7)),
        ([1, 2, 9], (1, 2, 9, 9)),
        ([4, 2, *range(10, 26), 90, 80], (3, 17, 85, 90)),  # of 20, two at a time
    ],
)
def test_course(values, expected):
    keys = ("start", "middle", "end", "peak")
    assert course(values) == dict(zip(keys, expected, strict=True))
    assert course(array("q", values)) == course(values)


def filled(size):
    """Memory that goes back to the system where it is closed, whatever the C library keeps."""
    content = mmap.mmap(-1, size)
    content.write(b"x" * size)
    return content


def test_the_peak_holds_what_is_gone():
    content = filled(200 * MIB)
    most = resident_bytes()
    content.close()
    before = peak_bytes(CPU)
    assert before["host"] >= most - MIB
    assert before["gpu"] is None
    forget_peak(CPU)
    filled(100 * MIB).close()
    after = peak_bytes(CPU)["host"]
    assert resident_bytes() <= after + MIB
    assert after < before["host"] - 50 * MIB


def test_the_watch_sees_what_was_started():
    waiting = "import sys; print(flush=True); sys.stdin.read()"
    inner = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {waiting!r}])"
    assert resident_bytes(2**22 + 1) == 0
    with MemoryWatch(seconds=0.01) as watch:
        process = subprocess.Popen(
            [sys.executable, "-c", inner], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        process.stdout.readline()
        found = descendants()
        alone = resident_bytes(process.pid)
        while len(watch.started) < 3:
            pass
        with MemoryWatch(seconds=1000) as brief:
            pass
        process.communicate()
    assert process.pid in found
    assert len(found) == 2
    assert brief.summary()["started"]["peak"] > alone > MIB
    assert brief.summary()["own"]["peak"] > 10 * alone
    assert set(watch.summary()["own"]) == {"start", "middle", "end", "peak"}


def test_repeated():
    images = [InputImage("in/a.png", "a"), InputImage("in/b.png", "b")]
    assert repeated(images, 5) == [
        ("in/a.png", "a_0"),
        ("in/b.png", "b_0"),
        ("in/a.png", "a_1"),
        ("in/b.png", "b_1"),
        ("in/a.png", "a_2"),
    ]
    assert repeated(images, 1) == [("in/a.png", "a_0")]


def test_padded_sizes(tmp_path):
    images = strips(tmp_path / "in", 2) + strips(tmp_path / "higher", 1, height=40)
    assert padded_sizes(images + images[:1]) == {"32x1344": 3, "96x1344": 1}


def test_the_temporary_folder_goes(tmp_path):
    with temporary_folder(tmp_path) as folder:
        (folder / "file").write_text("x")
        assert folder.parent == tmp_path
    assert list(tmp_path.iterdir()) == []
    with (
        pytest.raises(OutputError, match=r"--temporary=.*no: No such file"),
        temporary_folder(tmp_path / "no"),
    ):
        pass


def test_made_boxes_overlap_as_proposals_do():
    boxes = made_boxes(150, torch.Generator().manual_seed(1))
    assert boxes.shape == (150, 4)
    overlaps = box_geometry.pairwise_iou(boxes).fill_diagonal_(0)
    assert 0.5 < overlaps.max() < 0.7


def test_made_scores():
    generator = torch.Generator().manual_seed(1)
    scores = {kind: made_scores.made_scores(kind, 50, 40, generator) for kind in KINDS}
    for values in scores.values():
        np.testing.assert_allclose(values.sum(dim=1), 1, rtol=1e-5)
    assert scores["peaked"].amax(dim=1).min() > 0.9
    assert len(scores["peaked"].argmax(dim=1).unique()) > 20
    assert 1 < scores["flat"].max() / scores["flat"].min() < 1.2
    assert scores["equal"].unique().numel() == 1


def test_the_choice_by_itself(monkeypatch):
    told = []
    found = selection_seconds(CPU, 2, told.append, regions=40, classes=7)
    assert (found["regions"], found["classes"]) == (40, 7)
    assert len(told) == 6
    for kind in KINDS:
        assert found[kind]["same"] is True
        assert found[kind]["ours"]["repeats"] == found[kind]["original"]["repeats"] == 2
        assert min(found[kind]["ours"]["least"], found[kind]["original"]["least"]) > 0
    now, select, loop = Clock(), RegionOptions.select, original.confidences
    with monkeypatch.context() as turned:
        turned.setattr(made_scores, "clock", lambda device: now)
        turned.setattr(RegionOptions, "select", now.turned_by(1, select))
        turned.setattr(original, "confidences", now.turned_by(10, loop))
        timed = selection_seconds(CPU, 2, regions=5, classes=2)["flat"]
    assert (timed["ours"]["most"], timed["original"]["least"]) == (1, 10)
    monkeypatch.setattr(RegionOptions, "select", lambda self, b, s: select(self, b, s.sqrt()))
    assert selection_seconds(CPU, 1, regions=40, classes=7)["peaked"]["same"] is False


@pytest.mark.parametrize("model", support.TINY_MODELS)
def test_random_weights_make_a_model_that_works(tmp_path, model):
    path = tmp_path / "random.pth"
    state = torch.random.get_rng_state()
    write_random_weights(support.description(model), path)
    assert torch.equal(torch.random.get_rng_state(), state)
    network, description = load_described_model(path)
    assert description == support.description(model)
    extractor = RegionFeatureExtractor(network)
    first, second = (extractor.extract(image.path) for image in strips(tmp_path / "in", 2))
    assert (len(first), first.num_boxes) == (100, 100)
    assert np.isfinite(first.features).all()
    assert 0.01 < np.abs(first.features).max() < 10
    assert not np.array_equal(first.bbox, second.bbox)
    again, other = (tmp_path / name for name in ("again.pth", "other.pth"))
    write_random_weights(support.description(model), again)
    write_random_weights(support.description(model), other, seed=1)
    assert fingerprint(load_described_model(again)[0]) == fingerprint(network)
    assert fingerprint(load_described_model(other)[0]) != fingerprint(network)
    with pytest.raises(CheckpointError, match="can't be written"):
        write_random_weights(support.description(model), tmp_path / "no" / "random.pth")


@pytest.mark.parametrize("model", support.TINY_MODELS)
def test_a_stand_in_gives_regions_of_the_models_shapes(tmp_path, model):
    (image,) = strips(tmp_path, 1)
    found = stand_in_extractor(support.description(model)).extract(image.path)
    expected = RegionFeatureExtractor(support.tiny_model(model))(image.path)
    assert len(found) == 10
    assert found.features.shape[1] == expected.features.shape[1]
    assert found.cls_prob.shape[1] == expected.cls_prob.shape[1]
    assert (found.image_width, found.image_height) == (600, 9)
