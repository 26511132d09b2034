"""Images read ahead in processes: the same pixels, in order, bounded, and no process is left."""

import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import support
import torch
from fakes import images_with_warnings
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from reference import goldens
from vmb_d2.config import named_model
from vmb_d2.data import loading, preprocessing
from vmb_d2.data.batching import Batch
from vmb_d2.data.loading import default_workers, loaded_batches
from vmb_d2.data.preprocessing import load
from vmb_d2.errors import ConfigError, ImageReadError
from vmb_d2.structures.input_image import InputImage

PHOTOGRAPHS = [str(goldens.image_path(n)) for n in ("camera.png", "coffee.png", "rocket.jpg")]


def saved(path, size=(60, 40), colour=(9, 8, 7)):
    with open(path, "wb") as file:
        Image.new("RGB", size, colour).save(file, "png")
    return str(path)


def batches_of(paths, size=1, asked=None):
    """Batches of ``size`` images, counted in ``asked`` as they are asked for."""
    for begin in range(0, len(paths), size):
        if asked is not None:
            asked.append(begin)
        chunk = [InputImage(path, path) for path in paths[begin : begin + size]]
        yield Batch(chunk, (800, 1216))


def read(paths, workers, size=1):
    """A copy of all images, or the errors."""
    for batch, outcomes in loaded_batches(batches_of(paths, size), workers, size):
        assert len(outcomes) == len(batch.images)
        for outcome in outcomes:
            yield outcome if isinstance(outcome, Exception) else vars_of(outcome)


def vars_of(image):
    return {**vars(image), "tensor": image.tensor.clone()}


def assert_same(found, expected):
    expected = vars(expected)
    assert found["tensor"].dtype == torch.float32
    assert torch.equal(found["tensor"], expected["tensor"])
    assert {**found, "tensor": 0} == {**expected, "tensor": 0}


def mortal(path, step):
    """Reads an image, but some names do harm."""
    if Path(path).stem == "deadly":
        os.kill(os.getpid(), signal.SIGKILL)
    if Path(path).stem == "failing":
        raise ZeroDivisionError("a mishap")
    if Path(path).stem == "slow":
        time.sleep(0.2)
    return load(path, step)


@pytest.fixture
def mishaps(monkeypatch):
    monkeypatch.setattr(loading, "load", mortal)


@pytest.mark.parametrize(("count", "size"), [(1, 1), (3, 1), (2, 4)])
def test_images_are_the_same_and_in_order(count, size):
    expected = {path: load(path) for path in PHOTOGRAPHS}
    paths = PHOTOGRAPHS * 3 + PHOTOGRAPHS[:1]
    for path, image in zip(paths, read(paths, count, size), strict=True):
        assert_same(image, expected[path])


def test_a_batch_stays_until_the_next_is_asked_for(tmp_path):
    paths = [saved(tmp_path / f"{i}.png", colour=(i, i, i)) for i in range(24)]
    values = []
    for _, images in loaded_batches(batches_of(paths, 3), 2, 3):
        time.sleep(0.03)  # others are read meanwhile
        values += [image.tensor[0, 0, 0].item() for image in images]
    assert values == [values[0] + i for i in range(24)]


@pytest.mark.parametrize("name", ["x152", "vinvl", "frcnn_vg", "bua"])
@given(height=st.integers(1, 5000), width=st.integers(1, 5000))
def test_an_image_fits_into_its_memory(name, height, width):
    step = named_model(name).input
    h, w = step.network_size(height, width)
    assert h * w <= step.most_pixels
    if 0 < min(h, w) < 20:  # where few pixels are resized: OpenCV's own rounding
        image = preprocessing.preprocess(np.zeros((height, width, 3), dtype=np.uint8), step)
        assert image.tensor.numel() <= 3 * step.most_pixels


@pytest.mark.parametrize("count", [0, 2])
def test_images_that_cant_be_read_are_errors_in_their_place(tmp_path, count):
    missing, empty, good = (str(tmp_path / name) for name in ("\udcff.png", "empty", "good.png"))
    Path(empty).touch()
    saved(good)
    narrow = saved(tmp_path / "narrow.png", (4000, 1))
    found = list(read([missing, good, empty, narrow], count))
    assert_same(found.pop(1), load(good))
    for path, error in zip((missing, empty, narrow), found, strict=True):
        with pytest.raises(ImageReadError) as expected:
            load(path)
        assert isinstance(error, ImageReadError)
        assert str(error) == str(expected.value)


@pytest.mark.parametrize("count", [0, 1])
def test_warnings_of_pillow_are_in_the_log(tmp_path, count, caplog):
    files = images_with_warnings(tmp_path)
    list(read([str(path) for path in files], count))
    for message, (path, text) in zip(caplog.messages, files.items(), strict=True):
        assert message.startswith(f"{path}: {text}")


@pytest.mark.slow
def test_a_killed_process_ends_in_an_error_that_names_the_image(mishaps, tmp_path):
    paths = [saved(tmp_path / f"{name}.png") for name in ("a", "b", "c", "deadly", "d")]
    found = []
    with pytest.raises(ConfigError, match=r"^workers=2: a process .* died") as caught:
        found.extend(read(paths, 2))
    assert f"its last image: {paths[3]}." in str(caught.value)
    assert len(found) <= 3
    assert not multiprocessing.active_children()


def test_other_errors_are_raised_as_they_are(mishaps, tmp_path):
    paths = [saved(tmp_path / f"{name}.png") for name in ("a", "failing")]
    with pytest.raises(ZeroDivisionError, match="a mishap"):
        list(read(paths, 1))
    assert not multiprocessing.active_children()


def test_an_error_of_the_batches_comes_after_the_images_before_it():
    def batches():
        yield from batches_of(PHOTOGRAPHS)
        raise ZeroDivisionError("no more")

    found = []
    with pytest.raises(ZeroDivisionError, match="no more"):
        found.extend(batch for batch, _ in loaded_batches(batches(), 2, 1))
    assert len(found) == 3
    assert not multiprocessing.active_children()


def test_processes_that_cant_be_started(monkeypatch):
    def fail():
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", fail)
    words = "^workers=2: processes that read images can't be started: Resource temporarily"
    with pytest.raises(ConfigError, match=words):
        list(read(PHOTOGRAPHS, 2))


def test_signals_dont_reach_the_processes(mishaps, tmp_path):
    """Those of a terminal or a cluster are sent to all processes of a run."""
    path = saved(tmp_path / "slow.png")
    images = read([path] * 8, 2)
    for _ in itertools.islice(images, 4):
        for process in multiprocessing.active_children():
            for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2"):
                os.kill(process.pid, signal.Signals[name])
    assert len(list(images)) == 4
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


@pytest.mark.parametrize("count", [1, 6])
def test_no_process_is_left(mishaps, tmp_path, count):
    """Whether all images are taken, or some are still read."""
    images = read([saved(tmp_path / "slow.png")] * 6, 3)
    for _ in itertools.islice(images, count):
        assert len(multiprocessing.active_children()) == 3
    images.close()
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_a_program_ends_that_takes_only_some_images():
    program = (
        "from vmb_d2.config.input_step import MMF_INPUT\n"
        "from vmb_d2.data.workers import read_in_processes\n"
        f"images = read_in_processes([{PHOTOGRAPHS[0]!r}] * 20, 2, MMF_INPUT, ahead=2, kept=1)\n"
        "next(images)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=100, cwd=support.ROOT)


@pytest.mark.parametrize(("count", "size"), [(2, 1), (1, 3)])
def test_batches_are_not_read_far_ahead(count, size):
    asked, most = [], max(2 * size, 2 * count)
    batches = batches_of(PHOTOGRAPHS[2:] * 40, size, asked)
    for number, _ in enumerate(loaded_batches(batches, count, size), 1):
        assert number < len(asked) <= number + -(-(most + count) // size)
        if number == 8:
            break


@pytest.mark.parametrize(
    ("device", "cores", "expected"),
    [("cpu", 64, 0), ("cuda", 1, 0), ("cuda", 4, 3), ("cuda:1", 64, 8)],
)
def test_default_workers(monkeypatch, device, cores, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)))
    assert default_workers(torch.device(device)) == expected
