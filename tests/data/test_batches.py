"""Features don't depend on batch size, order or batch mates, as bucketed batching promises."""

import random

import pytest
import support
from jobs import failures, run

from reference import goldens
from vmb_d2.comparison.fidelity import distance
from vmb_d2.data.image_list import name_images
from vmb_d2.extractor import RegionFeatureExtractor
from vmb_d2.stores.mmf import MMFReader

IMAGES = ("camera.png", "chelsea.png", "coffee.png", "horse.png", "rocket.jpg")


def run_over(paths, folder, batch_size, batching="bucketed"):
    extractor = RegionFeatureExtractor(support.tiny_model("tiny_x152_fpn"))
    values = {"batch_size": batch_size, "batching": batching, "formats": ["mmf"]}
    return run(folder, name_images(paths), extractor, **values), failures(folder)


def extract(folder, names, batch_size, batching="bucketed"):
    paths = [str(goldens.image_path(name)) for name in names]
    report, failed = run_over(paths, folder, batch_size, batching)
    assert (report.extracted, failed) == (len(names), [])
    return {name: MMFReader(folder).read(name.split(".")[0]) for name in names}


@pytest.fixture(scope="module")
def one_by_one(tmp_path_factory):
    return extract(tmp_path_factory.mktemp("one_by_one"), IMAGES, 1)


@pytest.mark.slow
@pytest.mark.parametrize(("batch_size", "seed"), [(2, None), (5, 0), (5, 1)])
def test_batches_make_no_difference(tmp_path, one_by_one, batch_size, seed):
    names = list(IMAGES)
    if seed is not None:
        random.Random(seed).shuffle(names)
    for name, regions in extract(tmp_path, names, batch_size).items():
        result = distance(one_by_one[name], regions)
        assert result.matched_share >= (0.90 if name == "horse.png" else 0.999)
        assert result.features < 2e-5
        assert result.same_class == result.matched
        assert regions.num_boxes == one_by_one[name].num_boxes


@pytest.mark.slow
def test_mmf_batches_do_make_a_difference(tmp_path, one_by_one):
    """Or the test above could not fail: next to a wide image, horse.png's boxes reach further."""
    mixed = extract(tmp_path, ("coffee.png", "horse.png"), 2, batching="mmf")
    assert distance(one_by_one["horse.png"], mixed["horse.png"]).matched_share < 0.9
    assert distance(one_by_one["coffee.png"], mixed["coffee.png"]).matched_share == 1


@pytest.mark.parametrize("batching", ["bucketed", "mmf"])
def test_an_image_exchanged_after_its_header_was_read_fails_alone(tmp_path, monkeypatch, batching):
    coffee, camera = (str(goldens.image_path(name)) for name in ("coffee.png", "camera.png"))
    sizes = {coffee: (400, 600), camera: (300, 600)}
    monkeypatch.setattr("vmb_d2.data.preprocessing.read_size", sizes.get)
    report, (failure,) = run_over(list(sizes), tmp_path, 1, batching)
    assert (report.extracted, report.failed) == (1, 1)
    assert failure["path"] == camera
    assert "exchanged" in failure["reason"]
