"""Every stage of the tiny models against what the original code gave at that stage.

Stated tolerances, on the CPU in float32: proposals within 0.01 px, fc and pooled features within
2e-5 relative L2 error, logits and box deltas within 1e-4. ``python -m pytest -s`` prints what is
reached.
"""

import functools

import numpy as np
import pytest
import support
import torch

from reference import goldens
from vmb_d2.comparison.fidelity import nearest_boxes, relative_errors
from vmb_d2.data import preprocessing as images
from vmb_d2.extractor import pad

BATCH_OF_TWO = ("coffee.png", "horse.png")
STAGED = goldens.find(r"tiny_\w+\.seed0\.bs")
ids = [path.stem for path, _, _ in STAGED]


@functools.cache
@torch.no_grad()
def regions_of(model_name, names):
    """Regions with every feature, for a batch padded as the original pads it."""
    batch = [images.load(goldens.image_path(name)) for name in names]
    sizes = [image.padded_size for image in batch]
    size = tuple(max(s) for s in zip(*sizes, strict=True))
    model = support.tiny_model(model_name)
    return model, model.regions(pad(batch, size), model.feature_names).regions, size


def run(path, tag, image):
    names = BATCH_OF_TWO if tag == "bs2" else (image,)
    model, regions, size = regions_of(path.name.split(".")[0], names)
    return np.load(path), model, regions[names.index(image)], size


def rows_of(golden, regions, count):
    """Our rows of the golden's first proposals, which may have swapped places."""
    boxes = regions.proposal_boxes.tensor.numpy()
    nearest, distances = nearest_boxes(golden["proposals"][:count], boxes)
    assert distances.max() < 0.01
    return torch.from_numpy(nearest)


@pytest.mark.parametrize("golden", STAGED, ids=ids)
def test_proposals(golden):
    expected, _, regions, size = run(*golden)
    assert tuple(expected["input_size"]) == size
    assert len(regions) == len(expected["proposals"])
    boxes = regions.proposal_boxes.tensor.numpy()
    nearest, distances = nearest_boxes(expected["proposals"], boxes)
    matched = distances < 0.01
    share = 0.90 if golden[2] == "horse.png" else 0.999
    assert matched.mean() >= share
    objectness = regions.objectness.numpy()[nearest]
    difference = np.abs(objectness - expected["objectness"])[matched].max()
    assert difference < 1e-5
    print(f"{matched.mean():.1%} of proposals, {distances[matched].max():.1e} px", end=" ")


@pytest.mark.parametrize("golden", STAGED, ids=ids)
def test_features(golden):
    expected, model, regions, _ = run(*golden)
    rows = rows_of(expected, regions, 8)
    for name in model.feature_names:
        errors = relative_errors(expected[f"{name}_head"], regions.get(name)[rows].numpy())
        assert errors.max() < 2e-5
        print(f"{name} {errors.max():.1e}", end=" ")


@pytest.mark.parametrize("golden", STAGED, ids=ids)
def test_logits_and_box_deltas(golden):
    expected, model, regions, _ = run(*golden)
    rows = rows_of(expected, regions, 8)
    logits = regions.class_logits[rows].roll(1, dims=1)  # background first, as VMB has it
    np.testing.assert_allclose(logits.numpy(), expected["logits_head"], atol=1e-4)
    with torch.no_grad():
        deltas = model.roi_heads.box_predictor.bbox_pred(regions.get(model.feature_names[-1]))
    np.testing.assert_allclose(deltas[rows].numpy(), expected["bbox_deltas_head"][:, 4:], atol=1e-4)


def given_boxes():
    golden = np.load(
        support.REFERENCE / "golden" / "tiny_x152_fpn.seed0.given_boxes.coffee.png.npz"
    )
    model = support.tiny_model("tiny_x152_fpn")
    image = images.load(goldens.image_path("coffee.png"))
    assert image.scales == (golden["im_scale"], golden["im_scale"])
    boxes = torch.from_numpy(golden["boxes"]) * image.scales[0]
    batch = pad([image], image.padded_size)
    return golden, model, batch, boxes


def test_given_boxes():
    golden, model, batch, boxes = given_boxes()
    (regions,) = model.regions(batch, model.feature_names, [boxes]).regions
    for name in model.feature_names:
        assert relative_errors(golden[name], regions.get(name).numpy()).max() < 2e-5
    logits = regions.class_logits.roll(1, dims=1)
    np.testing.assert_allclose(logits.numpy(), golden["scores"], atol=1e-4)
    assert not regions.has("objectness")


@torch.no_grad()
def test_pooled_maps_of_given_boxes():
    from detectron2.structures import Boxes

    golden, model, batch, boxes = given_boxes()
    features = model.backbone(batch.tensor)
    heads = model.roi_heads
    maps = [features[name] for name in heads.box_in_features]
    pooled = heads.box_pooler(maps, [Boxes(boxes[:2])])
    assert pooled.shape == golden["pooled"].shape
    assert relative_errors(golden["pooled"].reshape(2, -1), pooled.flatten(1).numpy()).max() < 2e-5


@pytest.mark.parametrize("name", support.TINY_MODELS)
def test_no_given_boxes(name):
    model = support.tiny_model(name)
    image = images.load(goldens.image_path("coffee.png"))
    batch = pad([image], image.padded_size)
    (regions,) = model.regions(batch, model.feature_names, [torch.zeros(0, 4)]).regions
    assert [regions.get(n).shape[0] for n in model.feature_names] == [0] * len(model.feature_names)
    assert regions.class_logits.shape == (0, 101)
