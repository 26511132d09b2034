"""The regions of an extraction against a golden.

Stated tolerances, on the CPU in float32. VMB's: of the golden's boxes at least 99.9 % (horse.png:
90 %) are found within 0.01 px; the features of these are within 2e-5 relative L2 error; their
classes and num_boxes are equal. Of boxes that were given, all are the same.

VinVL's, frcnn_vg's and bua's: all regions in their order, but for those whose scores are equal up
to rounding (horse.png: in any order). VinVL's boxes within 0.005 px and features within 1e-5
relative L2 error; of the others 0.01 px and 2e-5. Scores and those of attributes within 2e-5;
classes, attributes and counts are equal.
"""

import numpy as np

from reference import goldens
from vmb_d2.comparison.fidelity import distance, nearest_boxes, relative_errors
from vmb_d2.stores.mmf import MMFReader

TIE = 1e-6  # between scores that can swap places by rounding


def check_output(path, folder, image):
    """Assert that an output folder in MMF's format has a golden's regions of ``image``."""
    check(path, MMFReader(folder).read(image.split(".")[0]), image)


def check(path, found, image):
    """Assert that RegionFeatures are a golden's."""
    with np.load(path) as file:
        golden = dict(file)
    if "bbox" in golden:
        # With a threshold, the original fills up with boxes of confidence 0 in no defined order.
        _check_vmb(golden, found, image, confident_only=".conf" in path.name)
    elif "fc6" in golden:
        _check_vmbs_given_boxes(golden, found)
    else:
        _check_lineage(golden, found, image)


def _check_vmb(golden, found, image, confident_only):
    expected = goldens.regions_of(golden)
    result = distance(expected, found)
    regions = int(golden["num_boxes"]) if confident_only else len(golden["bbox"])
    share = 0.90 if image == "horse.png" else 0.999
    assert result.matched >= share * regions
    assert result.features < 2e-5
    assert result.same_class == result.matched
    assert found.num_boxes == expected.num_boxes
    assert (found.image_width, found.image_height) == (expected.image_width, expected.image_height)
    assert found.features.shape == golden["features"].shape
    assert found.features.dtype == found.bbox.dtype == found.cls_prob.dtype == np.float32
    assert found.objects.dtype == np.int64
    _check_probabilities(golden, found)
    print(f"{result.matched}/{regions} boxes, {result.box:.1e} px, {result.features:.1e}", end=" ")


def _check_probabilities(golden, found):
    nearest, distances = nearest_boxes(golden["bbox"], found.bbox)
    matched = distances < 0.01
    highest = found.cls_prob[nearest].max(axis=1)
    np.testing.assert_allclose(highest[matched], golden["cls_prob_max"][matched], atol=2e-5)
    head = golden["cls_prob_head"]
    rows = np.flatnonzero(matched[: len(head)])
    assert found.cls_prob.shape[1] == head.shape[1]
    np.testing.assert_allclose(found.cls_prob[nearest[rows]], head[rows], atol=2e-5)


def _check_vmbs_given_boxes(golden, found):
    np.testing.assert_array_equal(found.bbox, golden["boxes"])
    for name, features in {"fc6": found.features, **found.further}.items():
        assert relative_errors(golden[name], features).max() < 2e-5
    np.testing.assert_allclose(found.class_logits, golden["scores"], atol=1e-4)
    assert found.objects.tolist() == golden["scores"][:, 1:].argmax(axis=1).tolist()
    assert found.num_boxes == len(golden["boxes"])


def _check_lineage(golden, found, image):
    is_vinvl = "labels" in golden
    pixels, error = (0.005, 1e-5) if is_vinvl else (0.01, 2e-5)
    assert len(found) == len(golden["boxes"])
    assert (found.image_width, found.image_height) == (
        int(golden["image_width"]),
        int(golden["image_height"]),
    )
    rows = np.arange(len(found))
    if np.abs(found.bbox - golden["boxes"]).max() >= pixels:  # some have swapped places
        rows, _ = nearest_boxes(golden["boxes"], found.bbox)
        assert sorted(rows) == list(range(len(rows)))
        if image != "horse.png":
            scores = golden["scores"] if is_vinvl else golden["obj_probs"]
            assert np.abs(scores[rows] - scores).max() < TIE
    assert np.abs(found.bbox[rows] - golden["boxes"]).max() < pixels
    if "features" in golden:
        assert relative_errors(golden["features"], found.features[rows]).max() < error
    if is_vinvl:
        _check_vinvl(golden, found, rows)
    else:
        np.testing.assert_array_equal(found.objects[rows], golden["obj_ids"])
        np.testing.assert_allclose(found.objects_conf[rows], golden["obj_probs"], atol=2e-5)
    if "attr_ids" in golden:
        np.testing.assert_array_equal(found.attrs_id[rows], golden["attr_ids"])
        np.testing.assert_allclose(found.attrs_conf[rows], golden["attr_probs"], atol=2e-5)


def _check_vinvl(golden, found, rows):
    """Its classes and attributes begin at 1, since 0 is the background, or none."""
    np.testing.assert_array_equal(found.objects[rows], golden["labels"] - 1)
    np.testing.assert_allclose(found.objects_conf[rows], golden["scores"], atol=2e-5)
    np.testing.assert_allclose(found.attrs_conf[rows], golden["attr_scores"][:, 0], atol=2e-5)
    if found.attribute_scores is None:
        return
    known = golden["attr_scores"] > 0
    scores = found.attribute_scores[rows]
    np.testing.assert_allclose(scores, golden["attr_scores"], atol=2e-5)
    if (golden["attr_labels"] >= 0).all():
        ids = found.attribute_ids[rows]
        np.testing.assert_array_equal(ids[known], golden["attr_labels"][known] - 1)
