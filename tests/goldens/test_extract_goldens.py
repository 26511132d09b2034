"""tools/extract.py as users run it, with the tiny models, against the goldens.

The tolerances are those of golden_checks.py.
"""

import json

import numpy as np
import pytest
import support
from golden_checks import check
from support import TINY_FPN, links

from reference import goldens
from vmb_d2.comparison.fidelity import distance, relative_errors
from vmb_d2.extractor import RegionFeatureExtractor
from vmb_d2.selection.options import RegionOptions
from vmb_d2.stores.mmf import MMFReader

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("model", "batch_size"), [(TINY_FPN, 1), *((model, 3) for model in support.TINY_MODELS)]
)
def test_goldens_at_batch_size_1(tmp_path, model, batch_size):
    """Bucketed batches of any size give what the original gives one by one."""
    recorded = goldens.find(rf"{model}\.seed0\.bs1\.")
    source = links(tmp_path / "in", *(image for _, _, image in recorded))
    done = support.extract_tiny(model, source, tmp_path / "out", f"extract.batch_size={batch_size}")
    assert done.returncode == 0, done.stderr
    for path, _, image in recorded:
        check(path, tmp_path / "out", image)


def test_goldens_of_mmf_batches(tmp_path):
    recorded = goldens.find(rf"{TINY_FPN}\.seed0\.bs2\.")
    source = links(tmp_path / "in", *(image for _, _, image in recorded))
    options = ("extract.batching=mmf", "extract.batch_size=2")
    done = support.extract_tiny(TINY_FPN, source, tmp_path / "out", *options)
    assert done.returncode == 0, done.stderr
    for path, _, image in recorded:
        check(path, tmp_path / "out", image)


def test_a_bad_image_changes_nothing_for_its_chunk_in_mmf_batches(tmp_path):
    """coffee, horse and an unreadable image between them: no say in the padding, no crash."""
    source = links(tmp_path / "in", "coffee.png", "horse.png")
    (source / "dark.png").write_text("no image")
    options = ("extract.batching=mmf", "extract.batch_size=3")
    done = support.extract_tiny(TINY_FPN, source, tmp_path / "out", *options)
    assert done.returncode == 1
    for path, _, image in goldens.find(rf"{TINY_FPN}\.seed0\.bs2\."):
        check(path, tmp_path / "out", image)


def test_resuming_an_mmf_chunk_gives_the_same_features(tmp_path):
    source, out = links(tmp_path / "in", "coffee.png", "horse.png"), tmp_path / "out"
    options = ("extract.batching=mmf", "extract.batch_size=2")
    assert support.extract_tiny(TINY_FPN, source, out, *options).returncode == 0
    whole = MMFReader(out).read("horse")
    (out / "horse.npy").unlink()
    done = support.extract_tiny(TINY_FPN, source, out, *options)
    assert "1 extracted, 1 there before" in done.stdout
    result = distance(whole, MMFReader(out).read("horse"))
    assert result.matched_share >= 0.9
    assert result.features < 2e-5


def test_golden_of_given_boxes(tmp_path):
    """In the order given, in a batch with other images, with both features and the logits."""
    ((path, _, image),) = goldens.find(rf"{TINY_FPN}\.seed0\.given_boxes\.")
    golden = np.load(path)
    source = links(tmp_path / "in", image, "chelsea.png", "rocket.jpg")
    entries = {
        image: golden["boxes"].tolist(),
        "chelsea.png": [],
        "rocket.jpg": [[1, 2, 30.5, 40], [0, 0, 639, 426]],
    }
    lines = [json.dumps({"image": key, "boxes": boxes}) for key, boxes in entries.items()]
    (tmp_path / "boxes.jsonl").write_text("\n".join(lines))
    done = support.extract_tiny(
        TINY_FPN,
        source,
        tmp_path / "out",
        f"boxes.file={tmp_path / 'boxes.jsonl'}",
        "extract.feature_name=[fc6,fc7]",
        "extract.batch_size=3",
    )
    assert done.returncode == 0, done.stderr
    for name in ("fc6", "fc7"):
        reader = MMFReader(tmp_path / "out" / name)
        found = reader.read(image.split(".")[0])
        np.testing.assert_array_equal(found.bbox, golden["boxes"])
        errors = relative_errors(golden[name], found.features)
        assert errors.max() < 2e-5
        np.testing.assert_allclose(found.class_logits, golden["scores"], atol=1e-4)
        foreground = golden["scores"][:, 1:].argmax(axis=1)
        assert found.objects.tolist() == foreground.tolist()
        assert found.num_boxes == len(golden["boxes"])
        assert reader.read("chelsea").features.shape == (0, 128)
        np.testing.assert_array_equal(reader.read("rocket").bbox, entries["rocket.jpg"])


def test_options_mean_what_they_mean_in_python(tmp_path):
    options = {
        "background": True,
        "confidence_threshold": 0.3,
        "num_features": 36,
    }
    values = [f"extract.{name}={str(value).lower()}" for name, value in options.items()]
    source = goldens.image_path("coffee.png")
    done = support.extract_tiny(TINY_FPN, source, tmp_path, "extract.feature_name=fc7", *values)
    assert done.returncode == 0, done.stderr
    chosen = RegionOptions(["fc7"], **options)
    expected = RegionFeatureExtractor(support.tiny_model(TINY_FPN), chosen).extract(source)
    found = MMFReader(tmp_path).read("coffee")
    result = distance(expected, found)
    assert (result.matched, result.same_class) == (36, 36)
    assert result.features < 2e-5
    assert found.num_boxes == expected.num_boxes
    assert found.cls_prob.shape == expected.cls_prob.shape == (36, 101)


def test_converted_weights_need_no_yaml(tmp_path):
    support.tiny_model(TINY_FPN)  # converts into the tests' cache
    (converted,) = (support.scratch() / "cache" / "converted").glob(f"{TINY_FPN}.*.pth")
    source = goldens.image_path("coffee.png")
    options = (f"model.weights={converted}", f"input.dir={source}", f"output.dir={tmp_path}")
    done = support.extract("model=vmb", *options)
    assert done.returncode == 0, done.stderr
    ((path, _, image),) = goldens.find(rf"{TINY_FPN}\.seed0\.bs1\.coffee")
    check(path, tmp_path, image)
