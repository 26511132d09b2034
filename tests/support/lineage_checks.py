"""An extraction of VinVL's, frcnn_vg's and bua's models against a golden.

Stated tolerances, on the CPU in float32, of all regions in their order, but for those whose scores
are equal up to rounding (horse.png: in any order):
VinVL's boxes within 0.005 px and features within 1e-5 relative L2 error; of the others 0.01 px and
2e-5. Scores and those of attributes within 2e-5; classes, attributes and counts are equal.
"""

import numpy as np

from vmb_d2.comparison.fidelity import nearest_boxes, relative_errors

TIE = 1e-6  # between scores that can swap places by rounding


def check(golden, found, image):
    """Assert that RegionFeatures are a golden's."""
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
