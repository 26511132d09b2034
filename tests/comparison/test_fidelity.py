"""The measure itself."""

import dataclasses

import numpy as np
import pytest

from vmb_d2.comparison.fidelity import distance
from vmb_d2.structures.regions import RegionFeatures


@pytest.fixture
def regions():
    rng = np.random.default_rng(0)
    corners = rng.random((20, 2), dtype=np.float32) * 500
    return RegionFeatures(
        features=rng.random((20, 8), dtype=np.float32),
        bbox=np.concatenate([corners, corners + 30], axis=1),
        num_boxes=20,
        objects=rng.integers(0, 5, 20),
        cls_prob=rng.random((20, 5), dtype=np.float32),
        image_width=640,
        image_height=480,
    )


def changed(regions, **values):
    return dataclasses.replace(regions, **values)


def test_order_makes_no_difference(regions):
    order = np.random.default_rng(1).permutation(20)
    shuffled = changed(
        regions,
        features=regions.features[order],
        bbox=regions.bbox[order],
        objects=regions.objects[order],
    )
    result = distance(regions, shuffled)
    assert (result.matched, result.box, result.features, result.same_class) == (20, 0, 0, 20)


def test_each_figure_is_that_of_the_worst_region(regions):
    boxes, features = regions.bbox.copy(), regions.features.copy()
    boxes[3, 2] += 0.02
    boxes[7, 0] += 0.005
    features[5] *= 1.001
    features[6] *= 1.0001
    objects = regions.objects + (np.arange(20) >= 16)
    result = distance(regions, changed(regions, bbox=boxes, features=features, objects=objects))
    assert (result.regions, result.matched, result.same_class) == (20, 19, 15)
    assert result.matched_share == 0.95
    assert result.box == pytest.approx(0.005, rel=0.01)
    assert result.features == pytest.approx(0.001, rel=1e-3)


def test_nothing_in_common(regions):
    far = changed(regions, bbox=regions.bbox + 1000)
    assert distance(regions, far).matched == 0
    empty = changed(
        regions, features=regions.features[:0], bbox=regions.bbox[:0], objects=regions.objects[:0]
    )
    assert distance(regions, empty).matched_share == 0
    assert distance(empty, regions).matched_share == 1
