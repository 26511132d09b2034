"""The tiny models' regions against the originals', within the tolerances of golden_checks.py."""

import json
import re

import numpy as np
import pytest
import support
from golden_checks import check, check_output
from golden_sets import CASES, app_options, extractor, load, plus_four_for_the_background

from reference import extractions, goldens, models
from reference.extractions import BATCH_MATES, OPTIONS
from vmb_d2.comparison.fidelity import relative_errors
from vmb_d2.stores.mmf import MMFReader

SETS = [(model, tag) for model in models.TINY for tag in OPTIONS[model]]


def test_every_golden_is_checked():
    assert {(model, tag) for model, _, tag, _ in CASES} == set(SETS)


@pytest.mark.parametrize(
    ("model", "path", "tag", "image"),
    [
        pytest.param(*case, marks=() if case[-1] == "coffee.png" else pytest.mark.slow)
        for case in CASES
    ],
    ids=[path.stem for _, path, _, _ in CASES],
)
def test_regions(monkeypatch, model, path, tag, image):
    if tag == "max36.background_plus4":
        plus_four_for_the_background(model, monkeypatch)
    check(path, extractions.regions(extractor(model, tag), load(path), tag, image), image)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "tag"), SETS)
def test_regions_of_the_app(tmp_path, model, tag):
    recorded = goldens.find(rf"{model}\.seed0\.{re.escape(tag)}\.[a-z]+\.(png|jpg)")
    names = BATCH_MATES.get(tag, [image for _, _, image in recorded])
    source = support.links(tmp_path / "in", *names)
    options = app_options(model, tag)
    if tag in BATCH_MATES:
        options += ["extract.batching=mmf", "extract.batch_size=2"]
    if tag == "given_boxes":
        golden = load(recorded[0][0])
        boxes = {names[0]: golden.get("given_boxes", golden["boxes"]).tolist()}
        (tmp_path / "boxes.json").write_text(json.dumps(boxes))
        options.append(f"boxes.file={tmp_path / 'boxes.json'}")
    if tag == "max36.background_plus4":
        state = support.vmb_state(model)
        state["roi_heads.box_predictor.cls_score.bias"][-1] += 4
        options.append(f"model.weights={support.saved(tmp_path, state)}")
    done = support.extract_tiny(model, source, tmp_path / "out", *options)
    assert done.returncode == 0, done.stderr
    for path, _, image in recorded:
        check_output(path, tmp_path / "out", image)


@pytest.mark.slow
@pytest.mark.parametrize("model", support.TINY_MODELS)
def test_bucketed_batches_of_the_app(tmp_path, model):
    """Of any size, they give what the original gives one by one."""
    recorded = goldens.find(rf"{model}\.seed0\.bs1\.")
    source = support.links(tmp_path / "in", *(image for _, _, image in recorded))
    done = support.extract_tiny(model, source, tmp_path / "out", "extract.batch_size=3")
    assert done.returncode == 0, done.stderr
    for path, _, image in recorded:
        check_output(path, tmp_path / "out", image)


@pytest.mark.slow
@pytest.mark.parametrize("model", support.TINY_LINEAGES)
@pytest.mark.parametrize("batch_size", [2, 5])
def test_batches_change_nothing(model, batch_size):
    """Not even on images of other sizes."""
    own = extractor(model, next(iter(OPTIONS[model])))
    paths = [goldens.image_path(name) for name in ("coffee.png", "rocket.jpg", "coffee.png")]
    for path, regions in zip(paths, own.extract(paths, batch_size=batch_size), strict=True):
        alone = own.extract(path)
        assert relative_errors(alone.features, regions.features).max() < 1e-5
        assert np.abs(alone.bbox - regions.bbox).max() < 0.01
        assert alone.objects.tolist() == regions.objects.tolist()


@pytest.mark.slow
def test_a_bad_image_changes_nothing_for_its_chunk_in_mmf_batches(tmp_path):
    """coffee, horse and an unreadable image between them: no say in the padding, no crash."""
    source = support.links(tmp_path / "in", "coffee.png", "horse.png")
    (source / "dark.png").write_text("no image")
    options = ("extract.batching=mmf", "extract.batch_size=3")
    done = support.extract_tiny(support.TINY_FPN, source, tmp_path / "out", *options)
    assert done.returncode == 1
    for path, _, image in goldens.find(rf"{support.TINY_FPN}\.seed0\.bs2\."):
        check_output(path, tmp_path / "out", image)


@pytest.mark.slow
def test_given_boxes_of_several_images_and_features(tmp_path):
    """In the order given, in a batch with other images."""
    ((path, _, image),) = goldens.find(rf"{support.TINY_FPN}\.seed0\.given_boxes\.")
    golden = load(path)
    source = support.links(tmp_path / "in", image, "chelsea.png", "rocket.jpg")
    entries = {
        image: golden["boxes"].tolist(),
        "chelsea.png": [],
        "rocket.jpg": [[1, 2, 30.5, 40], [0, 0, 639, 426]],
    }
    lines = [json.dumps({"image": key, "boxes": boxes}) for key, boxes in entries.items()]
    (tmp_path / "boxes.jsonl").write_text("\n".join(lines))
    options = ["extract.feature_name=[fc6,fc7]", "extract.batch_size=3"]
    boxes = f"boxes.file={tmp_path / 'boxes.jsonl'}"
    done = support.extract_tiny(support.TINY_FPN, source, tmp_path / "out", *options, boxes)
    assert done.returncode == 0, done.stderr
    check_output(path, tmp_path / "out" / "fc6", image)
    for name in ("fc6", "fc7"):
        reader = MMFReader(tmp_path / "out" / name)
        found = reader.read(image.split(".")[0])
        assert relative_errors(golden[name], found.features).max() < 2e-5
        assert reader.read("chelsea").features.shape == (0, 128)
        np.testing.assert_array_equal(reader.read("rocket").bbox, entries["rocket.jpg"])
