"""A run whose images are read in processes gives what one without gives, and ends as cleanly."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import support
import torch
from fakes import FakeExtractor, images_with_warnings, small_images
from jobs import SOME_FORMATS, children, everything, failures, is_there, manifest, run
from PIL import Image

from vmb_d2.data.image_list import list_images, name_images
from vmb_d2.engine.pipeline import MOST_UNWRITTEN, ExtractionPipeline
from vmb_d2.errors import ConfigError, OutputError, TooManyFailures
from vmb_d2.output.store_set import StoreSet
from vmb_d2.stores import FORMATS
from vmb_d2.utils.interruption import Interrupted, handled

SIZES = [(8, 6), (60, 40), (8, 6), (6, 8), (60, 40), (50, 50), (8, 6)]


@pytest.fixture
def images(tmp_path):
    return small_images(tmp_path / "in", 8)


def mixed_images(folder):
    """Of several sizes, two of which can't be read: one by its header, one by its pixels."""
    folder.mkdir()
    for i in range(21):
        image = Image.effect_noise(SIZES[i % len(SIZES)], 50 + i).convert("RGB")
        image.save(folder / f"{i:02}.png")
    (folder / "04.png").write_text("no image")
    whole = (folder / "11.png").read_bytes()
    (folder / "11.png").write_bytes(whole[: len(whole) // 2])
    return name_images(list_images(folder))


def uploading_ahead(*values, **options):
    """The pipeline as it is for a GPU."""
    return ExtractionPipeline(*values, **options | {"uploads_ahead": True})


@pytest.mark.parametrize("workers", [0, 3])
@pytest.mark.parametrize("most", [4, 1])
def test_uploading_ahead_changes_nothing(tmp_path, workers, most, monkeypatch):
    """Nor does memory that runs out, after which the images themselves are taken again."""

    def before_batch(images):
        if len(images) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")

    images = mixed_images(tmp_path / "in")
    values = {"batch_size": 4, "workers": workers}
    run(tmp_path / "out", images, **values)
    monkeypatch.setattr("vmb_d2.engine.job.ExtractionPipeline", uploading_ahead)
    extractor = FakeExtractor(before_batch=before_batch)
    run(tmp_path / "ahead", images, extractor, **values)
    assert extractor.uploaded > 0
    assert everything(tmp_path / "ahead") == everything(tmp_path / "out")
    assert failures(tmp_path / "ahead") == failures(tmp_path / "out")


def test_the_error_of_an_upload_ends_the_run(tmp_path, images, monkeypatch):
    def fail(images, padded_size):
        raise RuntimeError("CUDA error: invalid argument")

    monkeypatch.setattr("vmb_d2.engine.job.ExtractionPipeline", uploading_ahead)
    extractor = FakeExtractor()
    extractor.to_network = fail
    with pytest.raises(RuntimeError, match="invalid argument"):
        run(tmp_path / "out", images, extractor)


@pytest.mark.slow
@pytest.mark.parametrize("batching", ["bucketed", "mmf"])
def test_workers_change_nothing(tmp_path, batching):
    images = mixed_images(tmp_path / "in")
    found = {}
    for workers in (0, 3):
        out, extractor = tmp_path / f"{workers}", FakeExtractor()
        values = {"batching": batching, "batch_size": 4, "workers": workers}
        report = run(out, images, extractor, **values)
        assert (report.extracted, report.failed) == (19, 2)
        lines = sorted(failures(out), key=lambda failure: failure["path"])
        assert [failure["name"] for failure in lines] == ["04", "11"]
        found[workers] = everything(out), lines, extractor.batches, manifest(out)["counts"]
    assert found[3] == found[0]
    assert max(found[0][2]) == 4


def test_done_images_keep_their_say_in_mmf_batches(tmp_path):
    """Sizes are read ahead for the chunks of which something is left, and for all of these."""
    images = mixed_images(tmp_path / "in")
    values = {"batching": "mmf", "batch_size": 4}
    run(tmp_path / "whole", images, **values)
    for workers in (0, 2):
        out = tmp_path / f"{workers}"
        run(out, [images[i] for i in (0, 1, 2, 3, 13)], allow_mismatch=True, **values)
        run(out, images, workers=workers, **values)
        assert everything(out) == everything(tmp_path / "whole")


@pytest.mark.parametrize("workers", [0, 2])
def test_conversions_are_counted_and_warnings_name_the_image(tmp_path, workers, caplog, capfd):
    source = tmp_path / "in"
    small_images(source, 3)
    for name, mode in (("a.png", "RGBA"), ("b.png", "LA"), ("c.jpg", "CMYK"), ("d.png", "I;16")):
        Image.new(mode, (8, 6)).save(source / name)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 6)).save(source / "e.jpg", exif=exif)
    files = images_with_warnings(source)
    caplog.set_level("INFO")
    report = run(tmp_path / "out", name_images(list_images(source)), workers=workers)
    assert (report.extracted, report.failed) == (10, 0)
    (line,) = [line for line in caplog.messages if line.startswith("image modes: ")]
    assert line.partition(": ")[2].split("), ") == [
        "1 with 16 bits a channel or more (clipped at 255, not scaled",
        "3 with alpha (dropped, not blended",
        "1 with an EXIF rotation (not applied",
        "1 CMYK (converted without a colour profile)",
    ]
    for path, text in files.items():
        assert sum(line.startswith(f"{path}: {text}") for line in caplog.messages) == 1
    assert "Warning" not in capfd.readouterr().err


@pytest.mark.slow
def test_a_killed_worker_ends_the_run_and_the_next_goes_on(tmp_path, images):
    """As by the system where memory runs out: an error in one line, and nothing is lost."""

    def kill(batch):
        if len(extractor.batches) == 2:
            os.kill(min(set(children()) - before), signal.SIGKILL)

    before, extractor = set(children()), FakeExtractor(before_batch=kill)
    images = small_images(tmp_path / "in", 30)
    with pytest.raises(
        ConfigError, match=r"^workers=2: a process that reads images died"
    ) as caught:
        run(tmp_path / "out", images, extractor, workers=2)
    assert "\n" not in str(caught.value)
    assert manifest(tmp_path / "out")["runs"][-1]["state"] == "failed"
    done = manifest(tmp_path / "out")["counts"]["done"]
    assert 2 <= done < 30
    counts = run(tmp_path / "out", images, workers=2)
    assert (counts.skipped, counts.extracted) == (done, 30 - done)


@pytest.mark.parametrize("end", ["well", "signal", "error", "full disk", "too many failures"])
def test_no_process_is_left(tmp_path, images, end, monkeypatch):
    def look(batch):
        seen.update(children())
        if len(extractor.batches) == 2:
            if end == "signal":
                os.kill(os.getpid(), signal.SIGTERM)
            elif end == "error":
                raise RuntimeError("a mishap")
            elif end == "full disk":
                monkeypatch.setattr(StoreSet, "flush", no_space)

    def no_space(stores):
        raise OutputError("no space")

    before, seen = set(children()), set()
    if end == "too many failures":
        Path(images[-1].path).unlink()
    extractor = FakeExtractor(before_batch=look)
    errors = {
        "signal": Interrupted,
        "error": RuntimeError,
        "full disk": OutputError,
        "too many failures": TooManyFailures,
    }
    with pytest.raises(errors[end]) if end in errors else contextlib.nullcontext(), handled():
        run(tmp_path / "out", images, extractor, workers=3, max_failures=0)
    assert len(seen - before) == 3 or end == "too many failures"
    assert set(children()) == before


@pytest.mark.slow
def test_a_run_that_is_killed_leaves_no_process(tmp_path, images):
    program = (
        "import sys, os, signal; from fakes import FakeExtractor; "
        "from vmb_d2.data.image_list import *; from jobs import children, run\n"
        "def halt(batch): print(*children(), flush=True); signal.pause()\n"
        "images = name_images(list_images(sys.argv[1]))\n"
        "run(sys.argv[2], images, FakeExtractor(before_batch=halt), workers=3)"
    )
    command = [sys.executable, "-c", program, tmp_path / "in", tmp_path / "out"]
    path = os.pathsep.join([support.TEST_PATH, os.environ.get("PYTHONPATH", "")])
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path}
    ) as process:
        pids = [int(pid) for pid in process.stdout.readline().split()]
        assert len(pids) == 3
        assert all(map(is_there, pids))
        process.kill()
    end = time.monotonic() + 60
    while any(map(is_there, pids)):
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_signals_at_random_moments(tmp_path, workers):
    images = small_images(tmp_path / "in", 40)
    program = [
        "tests/support/programs/interrupted_job.py",
        tmp_path / "in",
        tmp_path / "out",
        8,
        workers,
        workers,
    ]
    done = support.run_tool(*program, PYTHONPATH=support.TEST_PATH)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert int(re.search(r"ended (\d+)", done.stdout).group(1)) >= 3  # or it was never disturbed
    run(tmp_path / "undisturbed", images, formats=list(FORMATS))
    expected = everything(tmp_path / "undisturbed", FORMATS)
    assert everything(tmp_path / "out", FORMATS) == expected


def test_a_write_under_way_is_finished_and_what_waits_is_written(tmp_path, images, monkeypatch):
    """A signal that comes while the writer is behind: what is finished is on the disk."""

    def slowly(stores):
        time.sleep(0.1)
        flush(stores)

    flush = StoreSet.flush
    monkeypatch.setattr(StoreSet, "flush", slowly)
    extractor = FakeExtractor(
        before_batch=lambda batch: len(extractor.batches) == 3 and os.kill(os.getpid(), 2)
    )
    with pytest.raises(Interrupted), handled():
        run(tmp_path / "out", images, extractor)
    assert len(everything(tmp_path / "out")) == 4 * len(SOME_FORMATS)
    assert manifest(tmp_path / "out")["counts"]["done"] == 4


def test_an_error_of_a_write_goes_before_a_signal(tmp_path, images, monkeypatch):
    """Or the stores would be closed as if they were whole."""

    def fail(stores):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)
        raise OutputError("no space")

    closed = []
    monkeypatch.setattr(StoreSet, "flush", fail)
    monkeypatch.setattr("vmb_d2.stores.mmf.MMFWriter.close", closed.append)
    with pytest.raises(OutputError, match="no space"), handled():
        run(tmp_path / "out", images, formats=["mmf"])
    assert closed == []


def test_nothing_is_written_after_an_error(tmp_path, images, monkeypatch):
    def fail(stores, name, regions):
        asked.append(name)
        raise OutputError("no space")

    asked = []
    extractor = FakeExtractor()
    monkeypatch.setattr(StoreSet, "write", fail)
    with pytest.raises(OutputError, match="no space"):
        run(tmp_path / "out", images, extractor)
    assert asked == [images[0].name]
    assert len(extractor.batches) <= 1 + MOST_UNWRITTEN
