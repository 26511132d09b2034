"""Images read ahead in processes: the same pixels, in order, bounded, whatever becomes of them."""

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
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from reference import goldens
from vmb_d2.data import loading as ahead
from vmb_d2.data import preprocessing as images
from vmb_d2.data import reader_pool as pool
from vmb_d2.data.batching import Batch
from vmb_d2.data.image_list import name_images
from vmb_d2.data.loading import default_workers, loaded_batches
from vmb_d2.data.reader_pool import ReaderPool
from vmb_d2.errors import ConfigError, ImageReadError

MORTAL = support.ROOT / "tests/support/programs/mortal_reader.py"
PHOTOGRAPHS = [str(goldens.image_path(n)) for n in ("camera.png", "coffee.png", "rocket.jpg")]


def saved(path, size=(60, 40), colour=(9, 8, 7)):
    with open(path, "wb") as file:
        Image.new("RGB", size, colour).save(file, "png")
    return str(path)


def assert_same_image(found, expected):
    assert found.tensor.dtype == expected.tensor.dtype
    assert found.tensor.shape == expected.tensor.shape
    assert torch.equal(found.tensor, expected.tensor)
    assert (found.scale, found.width, found.height) == (
        expected.scale,
        expected.width,
        expected.height,
    )


def is_there(pid):
    """Whether a process is, and not only its end waits to be noticed."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture(params=[1, 3])
def readers(request):
    with ReaderPool(request.param, 4) as readers:
        yield readers


def test_images_are_the_same_and_in_order(readers):
    expected = {path: images.load(path) for path in PHOTOGRAPHS}
    paths = PHOTOGRAPHS * 3
    waiting = iter(paths)
    for path in paths:
        while readers.room and (following := next(waiting, None)):
            readers.submit(following)
        assert_same_image(readers.take(), expected[path])
        readers.release()


def test_what_was_taken_stays_until_it_is_released(readers, tmp_path):
    for i in range(4):
        readers.submit(saved(tmp_path / f"{i}.png", colour=(i, i, i)))
    taken = [readers.take() for _ in range(4)]
    assert readers.room == 0
    with pytest.raises(ValueError, match="no room"):
        readers.submit(PHOTOGRAPHS[0])
    values = [image.tensor[0, 0, 0].item() for image in taken]
    assert values == [values[0] + i for i in range(4)]
    readers.release()
    assert readers.room == 4
    with pytest.raises(ValueError, match="none was submitted"):
        readers.take()


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_an_image_fits_into_its_memory(height, width):
    h, w = images.network_size(height, width)
    assert 3 * h * w * 4 <= pool._SLOT
    if 0 < min(h, w) < 20:  # where few pixels are resized: OpenCV's own rounding
        pixels, _ = images.network_pixels(np.zeros((height, width, 3), dtype=np.uint8))
        assert pixels.nbytes <= pool._SLOT


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file or directory"),
        (b"", "cannot identify image file"),
        (b"no image", "cannot identify image file"),
    ],
)
def test_an_image_that_cant_be_read_is_an_error_as_without_processes(
    readers, tmp_path, content, reason
):
    path = str(tmp_path / "\udcff.png")  # a name needs not be text
    if content is not None:
        Path(path).write_bytes(content)
    readers.submit(path)
    readers.submit(PHOTOGRAPHS[0])
    with pytest.raises(ImageReadError) as found:
        readers.take()
    with pytest.raises(ImageReadError) as expected:
        images.load(path)
    assert str(found.value) == str(expected.value)
    assert reason in str(found.value)
    assert_same_image(readers.take(), images.load(PHOTOGRAPHS[0]))


def test_one_too_narrow_is_named(readers, tmp_path):
    readers.submit(path := saved(tmp_path / "narrow.png", (4000, 1)))
    with pytest.raises(ImageReadError, match=rf"^{path}: 4000 x 1 pixels: too narrow"):
        readers.take()


@pytest.fixture
def mortal(monkeypatch):
    monkeypatch.setattr(pool, "_PROGRAM", MORTAL)


def test_an_image_over_which_processes_die_fails_alone(mortal, tmp_path, caplog):
    names = ["a", "deadly", "b", "c"]
    with ReaderPool(1, 4) as readers:
        before = readers.pids
        for name in names:
            readers.submit(saved(tmp_path / f"{name}.png"))
        for name in names:
            path = tmp_path / f"{name}.png"
            if name == "deadly":
                reason = rf"^{path}: 2 processes that read it were ended by SIGKILL$"
                with pytest.raises(ImageReadError, match=reason):
                    readers.take()
            else:
                assert_same_image(readers.take(), images.load(path))
        assert readers.pids != before
    assert caplog.text.count("was ended by SIGKILL; another takes over") == 2


def test_one_death_costs_no_image(mortal, tmp_path):
    names = ["once", "a", "b"] * 2
    with ReaderPool(2, len(names)) as readers:
        for name in names:
            readers.submit(saved(tmp_path / f"{name}.png"))
        for name in names:
            assert_same_image(readers.take(), images.load(tmp_path / f"{name}.png"))


def test_a_process_that_dies_with_nothing_to_do_is_replaced(readers):
    readers.submit(PHOTOGRAPHS[0])
    readers.take()
    readers.release()
    os.kill(pid := readers.pids[0], signal.SIGKILL)  # the one that was asked
    while is_there(pid):
        time.sleep(0.001)
    for path in PHOTOGRAPHS:
        readers.submit(path)
    for path in PHOTOGRAPHS:
        assert_same_image(readers.take(), images.load(path))
    assert pid not in readers.pids


def test_another_error_is_met_in_this_process(mortal, tmp_path, monkeypatch):
    path = saved(tmp_path / "failing.png")
    with ReaderPool(1, 2) as readers:
        readers.submit(path)
        assert_same_image(readers.take(), images.load(path))
        readers.submit(path)
        monkeypatch.setattr(pool, "load", lambda path: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            readers.take()


@pytest.mark.parametrize(
    ("program", "reason"),
    [("raise SystemExit(3)", "exit status 3"), ("import os; os.kill(os.getpid(), 9)", "SIGKILL")],
)
def test_processes_that_cant_be_started(monkeypatch, tmp_path, program, reason):
    (tmp_path / "program.py").write_text(program)
    monkeypatch.setattr(pool, "_PROGRAM", tmp_path / "program.py")
    words = rf"extract\.workers=2: .* ended by {reason}; extract\.workers=0 does without"
    with pytest.raises(ConfigError, match=words), ReaderPool(2, 4) as readers:
        for path in PHOTOGRAPHS:
            readers.submit(path)
        readers.take()


def test_processes_that_cant_import(monkeypatch, tmp_path):
    (tmp_path / "cv2.py").write_text("raise ImportError('libGL.so.1')")
    monkeypatch.syspath_prepend(tmp_path)
    words = r"extract\.workers=1: .*: ImportError: libGL\.so\.1; extract\.workers=0"
    with pytest.raises(ConfigError, match=words), ReaderPool(1, 4) as readers:
        readers.submit(PHOTOGRAPHS[0])
        readers.take()


def test_no_memory_or_no_interpreter_is_one_line(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/no/python")
    with pytest.raises(ConfigError, match="can't be started: No such file or directory; "):
        ReaderPool(1, 4)
    with support.file_size_limit(1000), pytest.raises(ConfigError, match="File too large"):
        ReaderPool(1, 4)


def test_a_process_imports_only_what_reads_images():
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); import process; process.import_images(); "
        "print({'torch', 'detectron2', 'torchvision'} & set(sys.modules), 'cv2' in sys.modules)"
    )
    folder = Path(pool.__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", program, folder], capture_output=True, text=True, check=True
    )
    assert done.stdout == "set() True\n"


def test_signals_are_not_for_the_processes(mortal, tmp_path):
    """Those of a terminal or a cluster reach all processes of a run, at any time of their lives."""
    path = saved(tmp_path / "slow.png")
    with ReaderPool(2, 8) as readers:
        before = readers.pids
        for _ in range(4):
            readers.submit(path)
        for _ in range(4):
            for pid in readers.pids:
                for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2"):
                    os.kill(pid, signal.Signals[name])
            readers.take()
        assert readers.pids == before
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert signal.SIGINT not in mask


@pytest.mark.parametrize("busy", [False, True])
def test_no_process_is_left(mortal, tmp_path, busy):
    path = saved(tmp_path / "slow.png")
    with ReaderPool(3, 30) as readers:
        pids = readers.pids
        for _ in range(30):
            readers.submit(path)
        for _ in range(0 if busy else 30):
            readers.take()
    assert len(set(pids)) == 3
    for pid in pids:
        with pytest.raises(ChildProcessError):  # its end was noticed
            os.waitpid(pid, 0)


def read_counted(asked, most):
    for i in range(40):
        asked.append(i)
        yield Batch(name_images([PHOTOGRAPHS[2]] * most), (800, 1216))


@settings(max_examples=4)
@given(st.integers(1, 2), st.integers(1, 3))
def test_batches_are_not_read_far_ahead(workers, size):
    asked = []
    for count, (batch, loaded) in enumerate(
        loaded_batches(read_counted(asked, size), workers, size), 1
    ):
        assert len(loaded) == len(batch.images) == size
        # One more is known than is read.
        assert count < len(asked) <= max(count + ahead.slots(workers, size) // size, 3)
        if count == 8:
            break


def test_without_workers_batches_are_read_when_they_are_asked_for():
    asked = []
    batches = loaded_batches(read_counted(asked, 2), 0, 2)
    for count in range(1, 4):
        next(batches)
        assert len(asked) == count


@pytest.mark.parametrize(
    ("device", "cores", "expected"),
    [("cpu", 64, 0), ("cuda", 1, 0), ("cuda", 4, 3), ("cuda:1", 64, 8)],
)
def test_default_workers(monkeypatch, device, cores, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)))
    assert default_workers(torch.device(device)) == expected
