"""What only a GPU shows. `make gpu` runs these tests too."""

import subprocess

import pytest
import support
import torch
from jobs import manifest, run

from reference import goldens, models
from vmb_d2.comparison.fidelity import distance
from vmb_d2.data import preprocessing
from vmb_d2.errors import ConfigError
from vmb_d2.extractor import RegionFeatureExtractor
from vmb_d2.stores.mmf import MMFReader
from vmb_d2.structures.input_image import InputImage
from vmb_d2.utils.devices import device_of

pytestmark = pytest.mark.gpu

COFFEE = goldens.image_path("coffee.png")
TINY = support.TINY_FPN


@pytest.fixture(scope="module")
def gpu():
    """The first GPU."""
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    return torch.device("cuda:0")


@pytest.fixture(scope="module")
def extractor(gpu):
    return RegionFeatureExtractor(models.network(TINY, gpu))


@pytest.fixture(scope="module")
def coffee(extractor):
    """The regions of coffee.png."""
    return extractor.extract(COFFEE)


def images(count):
    return [InputImage(str(COFFEE), f"coffee_{i}") for i in range(count)]


def assert_same(found, expected):
    """That regions are the same up to rounding; `make gpu` compares them with the goldens."""
    result = distance(expected, found)
    assert result.matched_share >= 0.99
    assert result.features < 2e-5
    assert result.same_class == result.matched


def test_the_names_of_devices(gpu):
    assert device_of("auto").type == "cuda"
    assert device_of("cuda:0") == gpu
    missing = f"cuda:{torch.cuda.device_count()}"
    with pytest.raises(ConfigError, match=f"device={missing}: valid here are auto, cpu, cuda"):
        device_of(missing)


def test_out_of_memory_is_tried_again_in_halves(out, gpu, extractor, coffee):
    def most_memory(batch_size):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(gpu)
        extractor.extract([COFFEE] * batch_size, batch_size=batch_size)
        return torch.cuda.max_memory_reserved(gpu)

    allowed = (most_memory(1) + most_memory(8)) / 2
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(gpu).total_memory
    torch.cuda.set_per_process_memory_fraction(allowed / total, gpu)
    try:
        counts = run(out, images(8), extractor, batch_size=8, formats=["mmf"], workers=0)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, gpu)
    assert (counts.extracted, counts.failed) == (8, 0)
    assert counts.out_of_memory > 0
    assert manifest(out)["runs"][-1]["out_of_memory"] == counts.out_of_memory
    for i in range(8):
        assert_same(MMFReader(out).read(f"coffee_{i}"), coffee)


def test_each_batch_arrives_as_it_was(gpu, extractor):
    """Also where the GPU is busy while memory on the host is freed and used again."""
    names = ("coffee.png", "camera.png", "rocket.jpg")
    loaded = [preprocessing.load(goldens.image_path(name)) for name in names] * 5
    busy = torch.rand(4096, 4096, device=gpu)
    for _ in range(20):
        busy = busy @ busy
        busy /= busy.max()
    sent = [extractor.to_network([image], image.padded_size) for image in loaded]
    for image, batch in zip(loaded, sent, strict=True):
        expected = torch.zeros(1, 3, *image.padded_size)
        height, width = image.tensor.shape[-2:]
        expected[0, :, :height, :width] = image.tensor
        assert batch.tensor.device == gpu
        assert torch.equal(batch.tensor.cpu(), expected)


def test_images_read_in_processes(tmp_path, extractor, coffee):
    """Which begin after this process has begun to use the GPU."""
    counts = run(tmp_path, images(4), extractor, formats=["mmf"], workers=2)
    assert (counts.extracted, counts.failed) == (4, 0)
    for i in range(4):
        assert_same(MMFReader(tmp_path).read(f"coffee_{i}"), coffee)


@pytest.mark.slow
def test_two_processes_on_one_gpu(tmp_path, out, extractor):
    names = ("coffee.png", "camera.png", "chelsea.png", "rocket.jpg")
    source = support.links(tmp_path / "in", *names)
    support.tiny_model(TINY)  # makes the weights
    processes = [
        subprocess.Popen(
            support.tiny_command(
                TINY, source, out, "device=cuda:0", "shard.count=2", f"shard.index={index}"
            ),
            cwd=support.ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    for name in names:
        expected = extractor.extract(goldens.image_path(name))
        assert_same(MMFReader(out).read(name.split(".")[0]), expected)
