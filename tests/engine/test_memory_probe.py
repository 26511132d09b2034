"""extract.batch_size=auto: what images take is measured, and a run goes by it.

On a GPU that isn't there (fake_gpu.py); what the real network takes is measured on the CPU.
"""

import gc
import itertools
import os
import weakref

import pytest
import support
import torch
from benchmarking.original import torchvisions_pooling
from fake_gpu import LARGEST, FakeGPU, GPUExtractor
from fakes import FakeExtractor, small_images
from PIL import Image
from test_job import everything, failures, manifest
from torch.profiler import ProfilerActivity, profile

from reference import goldens
from vmb_d2.data.given_boxes import GivenBoxes
from vmb_d2.engine.auto_batch_size import MOST, Choice
from vmb_d2.engine.job import ExtractionJob
from vmb_d2.engine.memory_probe import GPUMemory, batch_size_for, largest_images
from vmb_d2.errors import ConfigError
from vmb_d2.extractor import RegionFeatureExtractor
from vmb_d2.stores import FORMATS

MB = 10**6
BACKBONE, HEAD = (10 * MB, 100 * MB), (150 * MB, 20 * MB)
PROPOSALS = FakeExtractor().model.most_proposals


def extract(folder, images, extractor, **values):
    values = {"formats": list(FORMATS), "batch_size": "auto", "workers": 0, **values}
    return ExtractionJob(folder, **values)(images, lambda: extractor)


def probing(*counts, boxes=PROPOSALS):
    """What is asked of an extractor to measure so many images at a time."""
    return [asked for n in counts for asked in ((n, None), (n, [boxes] * n))]


def split(asked, count):
    """What the extractor was asked to find out, and the batches of ``count`` images after that."""
    images = 0
    for i in reversed(range(len(asked))):
        images += asked[i][0]
        if images == count:
            return asked[:i], asked[i:]
    raise AssertionError(f"{count} images were not extracted: {asked}")


def naive_choice(steps, free, most=MOST):
    needs = {n: max(fixed + n * each for fixed, each in steps) for n in range(1, most + 1)}
    return max(n for n, need in needs.items() if 10 * need <= 9 * free)


@pytest.fixture
def images(tmp_path):
    return small_images(tmp_path / "in", 20)


@pytest.mark.parametrize(
    ("total", "others", "index"),
    [(1000, 0, 0), (1000, 400, 0), (1500, 0, 1), (800, 100, 3), (20_000, 0, 0)],
)
def test_a_run_takes_as_many_as_fit(
    tmp_path, out, images, monkeypatch, caplog, total, others, index
):
    caplog.set_level("INFO")
    gpu = FakeGPU(total * MB, 200 * MB, others * MB, index).install(monkeypatch)
    extractor = GPUExtractor(gpu, [BACKBONE, HEAD], stays=50 * MB)
    report = extract(out, images, extractor)
    assert (report.extracted, report.failed, report.out_of_memory) == (20, 0, 0)

    count = naive_choice([BACKBONE, HEAD], (total - others - 200 - 2 * 50) * MB)
    probe, own = split(extractor.asked, 20)
    assert probe[:4] == probing(1, 2)
    assert [boxes for _, boxes in probe if boxes] == [[PROPOSALS] * n for n, b in probe if b]
    assert max(n for n, _ in probe) <= MOST
    batches = [count] * (20 // count) + [20 % count] * (20 % count > 0)
    assert own == [(n, None) for n in batches]
    assert manifest(out)["runs"][0]["batch_size"] == count
    assert "batch_size" not in manifest(out)["settings"]
    (line,) = [text for text in caplog.messages if "batch_size=auto" in text]
    assert line.startswith(f"extract.batch_size=auto: {count} image")

    extract(tmp_path / "other", images, FakeExtractor(), batch_size=1)
    assert everything(out) == everything(tmp_path / "other")


def test_the_line_in_the_log(out, images, monkeypatch, caplog):
    caplog.set_level("INFO")
    gpu = FakeGPU(1000 * MB, 200 * MB).install(monkeypatch)
    extract(out, images, GPUExtractor(gpu, [BACKBONE, HEAD], stays=25 * MB))
    assert caplog.messages[0] == (
        "extract.batch_size=auto: 6 images at a time, for which up to 610 MB are needed; "
        "750 MB are free"
    )


def test_what_pytorch_holds_and_does_not_use_is_free(monkeypatch):
    gpu = FakeGPU(1000, others=100).install(monkeypatch)
    memory = GPUMemory(torch.device("cuda", 0))
    gpu.take(600)
    gpu.give(400)
    assert (gpu.allocated, gpu.reserved) == (200, 600)
    assert memory.free() == 700


def test_the_probe_leaves_nothing_behind(monkeypatch):
    gpu = FakeGPU(1000 * MB, 200 * MB).install(monkeypatch)
    extractor = GPUExtractor(gpu, [BACKBONE], stays=10 * MB)
    free = 780 * MB
    choice = batch_size_for(extractor, 1000)
    assert choice == Choice(6, 610 * MB, free)
    assert extractor.asked == probing(1, 2, 6)
    assert extractor.chosen == [1, 1, 2, 2, 6, 6]
    assert gpu.allocated == gpu.reserved == gpu.peak == 210 * MB
    assert GPUMemory(torch.device("cuda", 0)).free() == free


@pytest.mark.parametrize("fits", [True, False])
def test_what_a_batch_needs_is_its_peak_above_what_stays(monkeypatch, fits):
    gpu = FakeGPU(1000).install(monkeypatch)
    gpu.take(700)
    gpu.give(400)  # an old peak
    held = []

    def run():
        held.append(weakref.ref(tensor := torch.zeros(3)))
        ring = [tensor]
        ring.append(ring)
        gpu.take(20)  # for ever
        for count in (50, 150, 100 if fits else 701):
            gpu.take(count)
            gpu.give(count)
        return tensor

    memory = GPUMemory(torch.device("cuda", 0))
    gc.disable()
    try:
        assert memory.needed(run) == (150 if fits else None)
    finally:
        gc.enable()
    assert (gpu.allocated, gpu.reserved, gpu.peak) == (320, 320, 320)
    assert held[0]() is None


def test_another_error_than_want_of_memory_is_raised(monkeypatch):
    FakeGPU(1000).install(monkeypatch)

    def run():
        raise RuntimeError("CUDA error: device-side assert triggered")

    with pytest.raises(RuntimeError, match="device-side assert"):
        GPUMemory(torch.device("cuda", 0)).needed(run)


def test_on_the_cpu_it_is_one(out, images, caplog):
    caplog.set_level("INFO")
    extractor = FakeExtractor()
    assert extract(out, images, extractor).extracted == 20
    assert extractor.batches == [1] * 20
    assert manifest(out)["runs"][0]["batch_size"] == 1
    assert "extract.batch_size=auto: 1 image at a time" in caplog.messages


@pytest.mark.parametrize(("count", "expected"), [(1, []), (2, [1, 2]), (5, [1, 2, 5])])
def test_no_more_than_there_are_to_extract(out, images, monkeypatch, count, expected):
    gpu = FakeGPU(100_000 * MB).install(monkeypatch)
    extract(out, images[: 20 - count], FakeExtractor())
    extractor = GPUExtractor(gpu, [BACKBONE])
    assert extract(out, images, extractor).extracted == count
    assert extractor.asked == [*probing(*expected), (count, None)]


def test_with_nothing_to_do_nothing_is_loaded(out, images):
    extract(out, images, FakeExtractor())
    before = manifest(out)
    job = ExtractionJob(out, list(FORMATS), batch_size="auto")
    assert job(images, lambda: pytest.fail("loaded")).skipped == 20
    assert manifest(out) == before


@pytest.mark.parametrize(("total", "asked"), [(390, [*probing(1), (2, None)]), (290, [(1, None)])])
def test_where_memory_does_for_no_two_it_is_one(out, images, monkeypatch, total, asked):
    """And where it doesn't for one, the run says so of each image that really doesn't fit."""
    gpu = FakeGPU(total * MB, 200 * MB).install(monkeypatch)
    extractor = GPUExtractor(gpu, [(0, 100 * MB)])
    Image.new("RGB", (900, 540)).save(os.path.dirname(images[0].path) + "/image_000.png")
    report = extract(out, images, extractor)
    assert extractor.asked == asked + [(1, None)] * 20
    assert manifest(out)["runs"][0]["batch_size"] == 1
    failed = 1 if total == 290 else 0
    assert (report.extracted, report.failed) == (20 - failed, failed)
    for failure in failures(out):
        assert (failure["name"], failure["stage"]) == ("image_000", "network")


def test_what_others_take_afterwards_is_met_with_smaller_batches(out, images, monkeypatch, caplog):
    gpu = FakeGPU(1000 * MB).install(monkeypatch)

    def crowd(batch):
        if len(batch) == 8 and not extractor.asked[-1][1] and len(extractor.asked) > 6:
            gpu.others = 500 * MB

    extractor = GPUExtractor(gpu, [BACKBONE], before_batch=crowd)
    report = extract(out, images, extractor)
    assert (report.extracted, report.failed, report.out_of_memory) == (20, 0, 1)
    assert manifest(out)["runs"][0]["batch_size"] == 8
    assert "out of memory with 8 images at once: from now on at most 4" in caplog.text


def test_going_on_with_another_number(tmp_path, out, images, monkeypatch):
    for total, count, part in ((1000, 8, images[:10]), (500, 4, images)):
        gpu = FakeGPU(total * MB).install(monkeypatch)
        extract(out, part, GPUExtractor(gpu, [BACKBONE]))
        assert manifest(out)["runs"][-1]["batch_size"] == count
        assert manifest(out)["runs"][-1]["mismatch"] == []
    extract(tmp_path / "other", images, FakeExtractor(), batch_size=1)
    assert everything(out) == everything(tmp_path / "other")


def test_given_boxes_are_as_many_as_the_image_with_the_most_has(out, images, monkeypatch):
    gpu = FakeGPU(1000 * MB).install(monkeypatch)
    extractor = GPUExtractor(gpu, [BACKBONE])
    boxes = GivenBoxes([(images[i].name, [[1, 1, 3, 3]] * n) for i, n in enumerate([2, 7, 0, 4])])
    assert extract(out, images, extractor, boxes=boxes).extracted == 20
    probe, own = split(extractor.asked, 20)
    assert probe == [(n, [7] * n) for n in (1, 2, 8)]
    assert extractor.chosen == []
    assert own == [(8, [2, 7, 0, 4, 0, 0, 0, 0]), (8, [0] * 8), (4, [0] * 4)]


def test_mmfs_batches_are_refused_before_any_work(out, images):
    with pytest.raises(ConfigError, match=r"batch_size=auto: with extract\.batching=mmf features"):
        extract(out, images, FakeExtractor(), batching="mmf")
    with pytest.raises(ConfigError, match=r"batch_size=0: has to be a whole number"):
        extract(out, images, FakeExtractor(), batch_size=0)
    assert not out.exists()


def bytes_needed(run):
    """The most memory that PyTorch allocates on the CPU while ``run`` is under way."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the profiler doesn't see what threads of Python's allocate
    try:
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
            run()
    finally:
        torch.set_num_threads(threads)
    events = found.profiler.kineto_results.events()
    changes = sorted((e for e in events if e.name() == "[memory]"), key=lambda e: e.start_ns())
    return max(itertools.accumulate(e.nbytes() for e in changes))


@pytest.mark.parametrize("name", ["tiny_x152_fpn", "tiny_r101_c4"])
def test_a_real_image_needs_no_more_than_a_made_up_one(name):
    """But hardly less, or the made-up one would be too large. Regions are pooled as on a GPU."""
    extractor = RegionFeatureExtractor(support.tiny_model(name))
    run = largest_images(extractor)
    photograph = Image.open(goldens.image_path("coffee.png")).resize((1333, 800))
    with torchvisions_pooling(extractor.model):
        made_up = bytes_needed(lambda: run(2))
        real = bytes_needed(lambda: extractor.extract([photograph] * 2, batch_size=2))
    assert 0.99 * made_up < real <= made_up


@pytest.mark.parametrize("name", ["tiny_x152_fpn", "tiny_r101_c4"])
@pytest.mark.parametrize("given", [None, 3])
def test_the_network_runs_on_the_largest_images_with_all_regions(monkeypatch, name, given):
    model = support.tiny_model(name)
    extractor = RegionFeatureExtractor(model)
    seen, chosen_from = [], []
    regions, read_out = model.regions, extractor.read_out
    monkeypatch.setattr(
        model,
        "regions",
        lambda *arguments: seen.append((arguments[0].tensor.shape, found := regions(*arguments)))
        or found,
    )
    monkeypatch.setattr(
        extractor,
        "read_out",
        lambda found, images, boxes=None: chosen_from.append(len(found[0]) if not boxes else None)
        or read_out(found, images, boxes),
    )
    largest_images(extractor, given)(1)
    assert {tuple(shape) for shape, _ in seen} == {(1, 3, *LARGEST)}
    counts = [len(found[0]) for _, found in seen]
    has_objectness = [found[0].has("objectness") for _, found in seen]
    if given:
        assert (counts, has_objectness, chosen_from) == ([3], [False], [None])
        return
    assert has_objectness == [True, False]
    assert counts == chosen_from
    assert counts[0] <= counts[1] == {"tiny_x152_fpn": 1000, "tiny_r101_c4": 300}[name]
