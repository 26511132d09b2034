"""The regions of an extraction against a golden.

Stated tolerances, on the CPU in float32: of the golden's boxes at least 99.9 % (horse.png: 90 %)
are found within 0.01 px; the features of these are within 2e-5 relative L2 error; their classes
and num_boxes are equal.
"""

import numpy as np

from reference import goldens
from vmb_d2.comparison.fidelity import distance, nearest_boxes
from vmb_d2.stores.mmf import MMFReader


def check(golden_path, folder, image, confident_only=False):
    """Assert that an output folder in MMF's format has a golden's regions of ``image``.

    ``confident_only``: the golden's regions of confidence 0 may be others.
    """
    check_regions(golden_path, MMFReader(folder).read(image.split(".")[0]), image, confident_only)


def check_regions(golden_path, found, image, confident_only=False):
    """The same of regions."""
    golden = np.load(golden_path)
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
    check_probabilities(golden, found)
    print(f"{result.matched}/{regions} boxes, {result.box:.1e} px, {result.features:.1e}", end=" ")


def check_probabilities(golden, found):
    nearest, distances = nearest_boxes(golden["bbox"], found.bbox)
    matched = distances < 0.01
    highest = found.cls_prob[nearest].max(axis=1)
    np.testing.assert_allclose(highest[matched], golden["cls_prob_max"][matched], atol=2e-5)
    head = golden["cls_prob_head"]
    rows = np.flatnonzero(matched[: len(head)])
    assert found.cls_prob.shape[1] == head.shape[1]
    np.testing.assert_allclose(found.cls_prob[nearest[rows]], head[rows], atol=2e-5)
