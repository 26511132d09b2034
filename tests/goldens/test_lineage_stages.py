"""The stages of VinVL's, frcnn_vg's and bua's tiny models against what their originals gave.

Stated tolerances, on the CPU in float32: input pixels within 1e-3, proposals within 0.01 px
(VinVL's 0.005), features within 2e-5 relative L2 error (VinVL's 1e-5), logits and box deltas within
1e-4, probabilities within 2e-5.
"""

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes
from lineage_sets import CASES, extractor, load, plus_four_for_the_background

from reference import goldens
from reference.extractions import batch_of
from vmb_d2.comparison.fidelity import nearest_boxes, relative_errors
from vmb_d2.extractor import pad

STAGED = [case for case in CASES if "proposals" in np.load(case[1])]
ids = [case[1].stem for case in STAGED]


@pytest.fixture(params=STAGED, ids=ids)
def stages(request, monkeypatch):
    """(golden, its model's name, network, output for its batch, its image there)."""
    name, path, tag, image = request.param
    if tag == "max36.background_plus4":
        plus_four_for_the_background(name, monkeypatch)
    own = extractor(name, tag)
    batch, size, row = batch_of(own, tag, image)
    output = own.model.regions(pad(batch, size), own.feature_names, box_deltas=True)
    return load(path), name, own.model, output, batch, row, image


@pytest.mark.slow
@torch.no_grad()
def test_stages(stages):
    golden, name, model, output, batch, row, image = stages
    regions, loaded = output.regions[row], batch[row]
    pixels, error = (0.005, 1e-5) if name == "tiny_vinvl" else (0.01, 2e-5)

    assert tuple(golden["input_size"]) == tuple(loaded.tensor.shape[1:])
    if "input_patch" in golden:
        height, width = (
            min(side, most) for side, most in zip(golden["input_size"], (116, 216), strict=True)
        )
        patch = loaded.tensor[:, height - 16 : height, width - 16 : width]
        np.testing.assert_allclose(patch.numpy(), golden["input_patch"], atol=1e-3)
    if "res4_patch" in golden:
        patch = output.maps["res4"][row, :8, 10:14, 10:14]
        np.testing.assert_allclose(patch.numpy(), golden["res4_patch"], rtol=1e-4, atol=1e-4)

    boxes = regions.proposal_boxes.tensor.numpy()
    assert len(boxes) == len(golden["proposals"])
    rows, distances = nearest_boxes(golden["proposals"], boxes)
    matched = distances < pixels
    assert matched.mean() >= (0.90 if image == "horse.png" else 0.999)
    if "objectness_logits" in golden:
        found, expected = regions.objectness_logits, golden["objectness_logits"]
        tolerance = 1e-4
    else:
        found, expected, tolerance = regions.objectness, golden["objectness"], 1e-5
    assert np.abs(found.numpy()[rows] - expected)[matched].max() < tolerance

    assert matched[:8].all()
    rows = rows[:8]
    logits, deltas = regions.class_logits[rows], regions.box_deltas[rows].numpy()
    if "pooled_head" in golden:
        assert relative_errors(golden["pooled_head"], regions.pooled[rows].numpy()).max() < error
    if "logits_head" in golden:
        first = logits if name == "tiny_frcnn_vg" else logits.roll(1, dims=1)
        np.testing.assert_allclose(first.numpy(), golden["logits_head"], atol=1e-4)
    if "bbox_deltas_head" in golden:
        expected = golden["bbox_deltas_head"]
        expected = expected if name == "tiny_frcnn_vg" else expected[:, 4:]  # the background's
        np.testing.assert_allclose(deltas, expected, atol=1e-4)
    check_attributes(golden, name, model, output, regions, rows, error)


def check_attributes(golden, name, model, output, regions, rows, error):
    head = model.roi_heads.attribute_head
    if "attr_pooled_head" in golden:  # VinVL's, of the boxes given out
        boxes = torch.from_numpy(golden["boxes_net"][:8])
        pooled = model.roi_heads.region_features(output.maps, [Boxes(boxes)])["pooled"]
        assert relative_errors(golden["attr_pooled_head"], pooled.numpy()).max() < error
        classes = torch.from_numpy(golden["labels"][:8].astype(np.int64) - 1)
        hidden = head.fc_attr(torch.cat([pooled, head.cls_embedding(classes)], dim=1)).relu()
        assert relative_errors(golden["attr_features_head"], hidden.numpy()).max() < error
        logits = head(pooled, classes).roll(1, dims=1)
        np.testing.assert_allclose(logits.numpy(), golden["attr_logits_head"], atol=1e-4)
        probabilities = logits.softmax(dim=1)[:4].numpy()
        np.testing.assert_allclose(probabilities, golden["attr_probs_head"], atol=2e-5)
        if "scores_all_head" in golden:
            proposals = golden["proposals"][golden["proposal_index"][:4]]
            of_boxes, _ = nearest_boxes(proposals, regions.proposal_boxes.tensor.numpy())
            scores = regions.class_logits[of_boxes].softmax(dim=1).roll(1, dims=1).numpy()
            np.testing.assert_allclose(scores, golden["scores_all_head"], atol=2e-5)
    elif "attr_logits_head" in golden or "attr_probs_head" in golden:
        logits = head(regions.pooled[rows], regions.class_logits[rows].argmax(dim=1))
        if name == "tiny_frcnn_vg":
            np.testing.assert_allclose(logits.numpy(), golden["attr_logits_head"], atol=1e-4)
        else:
            probabilities = logits.roll(1, dims=1).softmax(dim=1).numpy()
            np.testing.assert_allclose(probabilities, golden["attr_probs_head"], atol=2e-5)


@pytest.mark.parametrize("name", ["tiny_vinvl", "tiny_frcnn_vg"])
@torch.no_grad()
def test_given_boxes(name):
    ((path, _, image),) = goldens.find(rf"{name}\.seed0\.given_boxes\.")
    golden, own = load(path), extractor(name, "given_boxes")
    batch, size, _ = batch_of(own, "given_boxes", image)
    boxes = torch.from_numpy(golden["network_boxes" if "network_boxes" in golden else "boxes_net"])
    (regions,) = own.model.regions(pad(batch, size), own.feature_names, [boxes], True).regions
    logits, deltas = regions.class_logits.numpy(), regions.box_deltas.numpy()
    if name == "tiny_vinvl":  # the background is first
        np.testing.assert_allclose(np.roll(logits, 1, axis=1), golden["logits_head"], atol=1e-4)
    else:
        np.testing.assert_allclose(logits, golden["logits"], atol=1e-4)
        np.testing.assert_allclose(deltas, golden["bbox_deltas"], atol=1e-4)
        head = own.model.roi_heads.attribute_head
        attributes = head(regions.pooled, regions.class_logits.argmax(dim=1))
        np.testing.assert_allclose(attributes.numpy(), golden["attr_logits"], atol=1e-4)
