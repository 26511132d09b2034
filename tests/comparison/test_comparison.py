"""The figures, and what is judged."""

import json
import math

import numpy as np
import pytest
from comparison_stores import (
    MemoryStore,
    boxes,
    changed,
    every,
    features,
    images,
    kinds_of,
    names_of,
    result,
    rows,
)

from vmb_d2.comparison import Settings, as_dict, compare, json_text, table
from vmb_d2.errors import ConfigError
from vmb_d2.output.manifest import Manifest

A = images()
NO_SIZE = every(A, lambda r: changed(r, image_width=None, image_height=None))


def test_identical_stores():
    found = result(A, A)
    assert (found["same"], found["reasons"], found["opinions"]) == (True, [], [])
    assert found["feature_error"]["max"] == 0
    assert found["regions"] == {
        "matched": 240,
        "share_of_a": 1,
        "share_of_b": 1,
        "matched_by_row_images": 0,
        "reordered_images": 0,
    }
    assert found["classes"] == {"compared": 240, "same": 240}


def test_identical_stores_of_unusual_boxes():
    """Sides for corners, boxes without an extent, no number at all: equal is equal."""
    bbox = A["image_0"].bbox
    for values in (
        np.concatenate([bbox[:, :2], bbox[:, :2] * 0 + 30], axis=1),
        np.zeros((40, 4), np.float32),
        np.full((40, 4), np.nan, np.float32),
        bbox / 1000,
    ):
        a = {"x": changed(A["image_0"], bbox=values)}
        found = result(a, a)
        assert found["same"]
        assert names_of(found) == []


def test_boxes_that_are_exclusive_by_their_manifest(tmp_path):
    """Slightly off, so that the boxes themselves don't tell."""
    wide = every(A, lambda r: boxes(r, lambda bbox: bbox + np.array([0, 0, 40, 40])))
    b = every(wide, lambda r: boxes(r, lambda bbox: bbox + np.array([0.1, 0, 1.1, 1])))
    found = result(wide, b)
    assert found["same"]
    assert found["box_distance"]["median"] == pytest.approx(1.1, abs=1e-3)
    Manifest(tmp_path).begin({}, settings={"model": {"box_convention": "frcnn_vg"}})
    inclusive, exclusive = MemoryStore(wide), MemoryStore(b, tmp_path)
    for stores in ((inclusive, exclusive), (exclusive, inclusive)):
        found = as_dict(compare(*stores), *stores)
        assert kinds_of(found) == {"conventions"}
        assert found["box_distance"]["max"] == pytest.approx(0.1, abs=1e-3)
        assert "exclusive" in found["opinions"][0]["text"]
    found = as_dict(compare(exclusive, exclusive), exclusive, exclusive)
    assert (found["same"], found["box_distance"]["max"]) == (True, 0)


def test_figures_of_one_image():
    regions = A["image_1"]
    values, bbox = regions.features.copy(), regions.bbox.copy()
    objects, cls_prob = regions.objects.copy(), regions.cls_prob.copy()
    values[3] *= 1.25
    bbox[5, 2] += 0.75
    objects[:2] = (objects[:2] + 2) % 9
    cls_prob[7, 2] += 0.125
    other = {"features": values, "bbox": bbox, "objects": objects, "cls_prob": cls_prob}
    found = result(A, A | {"image_1": changed(regions, num_boxes=38, **other)})
    assert found["feature_error"]["max"] == pytest.approx(0.25)
    assert found["feature_error"]["median"] == 0
    assert found["feature_error"]["worst_image"] == "image_1"
    assert found["box_distance"]["max"] == pytest.approx(0.75)
    assert found["classes"] == {"compared": 240, "same": 238}
    assert found["cls_prob_difference"]["max"] == pytest.approx(0.125)
    assert (found["a"]["num_boxes"], found["b"]["num_boxes"]) == (240, 238)
    assert found["same"]  # each is less than 1 % of the regions


@pytest.mark.parametrize(
    ("kind", "field", "change"),
    [
        ("features", "features", lambda f: f * 1.01),
        ("boxes", "bbox", lambda b: b + 200),
        ("classes", "objects", lambda o: (o + 3) % 9),
        ("cls_prob", "cls_prob", lambda p: p + 0.01),
        ("cls_prob", "cls_prob", lambda p: p * np.nan),
    ],
)
def test_one_region_in_a_hundred_is_the_limit(kind, field, change):
    def worse(count):
        array = getattr(a["image_0"], field).copy()
        array[:count] = change(array[:count])
        return {"image_0": changed(a["image_0"], **{field: array})}

    a = images(count=1, regions=200)
    assert result(a, worse(1))["same"]
    assert kinds_of(result(a, worse(3))) == {kind}


def test_num_boxes_is_judged_where_both_stores_say_which_regions_count():
    a = every(A, lambda r: changed(r, num_boxes=30))
    assert kinds_of(result(a, every(A, lambda r: changed(r, num_boxes=29)))) == {"num_boxes"}
    one = a | {"image_0": changed(A["image_0"], num_boxes=29)}
    assert result(a, one)["same"]  # 1 of 180
    assert result(a, A)["same"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"iou": 0},
        {"iou": 1.1},
        {"tolerance": -1},
        {"tolerance": math.nan},
        {"matched": 1.5},
        {"limit": 0},
    ],
)
def test_settings_out_of_range(wrong):
    ((name, value),) = wrong.items()
    with pytest.raises(ConfigError, match=f"^{name}={value}: has to be "):
        Settings(**wrong)


def test_images_in_one_only():
    b = {name: regions for name, regions in A.items() if name != "image_2"}
    found = result(A, b | {"other": A["image_0"]})
    assert kinds_of(found) == {"images"}
    assert found["a"]["only_here"] == {"count": 1, "first": ["image_2"]}
    assert found["b"]["only_here"] == {"count": 1, "first": ["other"]}
    assert found["unexplained"] == []
    assert result(A, b, common_only=True)["same"]
    many = A | {f"more_{i}": A["image_0"] for i in range(8)}
    text = table(result(many, A))
    assert "only in A: more_0, more_1, more_2, more_3, more_4 and 3 more" in text


def test_nothing_in_both_is_never_the_same():
    for a, b in ((A, {"other": A["image_0"]}), ({}, A), ({}, {})):
        found = result(a, b, common_only=True)
        assert kinds_of(found) == {"images"}
        assert found["images"]["compared"] == 0
        assert "no image is in both" in table(found)
        json.loads(json_text(found))


def test_the_table_says_it_all():
    b = every(A, lambda r: changed(features(r, lambda f: f * 1.5), objects=r.objects + 1))
    b = {f"COCO_{name}": regions for name, regions in b.items()}
    text = table(result(A, b))
    for expected in (
        "A: A\nB: B\n",
        "images                  6                       6\n",
        "paired by               the integer after the last underscore\n",
        "regions matched         240: 100.00% of A, 100.00% of B\n",
        "box distance, px        median 0, 99th percentile 0, largest 0\n",
        "feature error           median 0.5, 99th percentile 0.5, largest 0.5, in image_",
        "same class              0 of 240\n",
        "DIFFERENT:\n  - 99th percentile of the feature errors: 5.0e-01, above 1.0e-03\n",
        "Probable causes:\n  - 240 of 240 classes of B are one more",
    ):
        assert expected in text, expected
    assert text.endswith("No known cause fits the difference in: features.\n")


# Stores that lack something: regions, fields, numbers


def test_images_without_regions():
    empty = {"x": rows(A["image_0"], np.arange(0))}
    assert result(empty, empty)["same"]
    for found in (result(empty, {"x": A["image_0"]}), result({"x": A["image_0"]}, empty)):
        assert kinds_of(found) == {"boxes"}
        assert sorted(found["regions"][f"share_of_{s}"] for s in "ab") == [0, 1]
    assert result(A | empty, A | empty)["same"]


def test_features_alone():
    def bare(regions):
        none = dict.fromkeys(("bbox", "objects", "cls_prob", "image_width", "image_height"))
        return changed(regions, **none)

    alone = every(A, bare)
    for a, b in ((alone, alone), (A, alone), (alone, A)):
        found = result(a, b)
        assert found["same"]
        assert found["regions"]["matched_by_row_images"] == 6
        assert found["classes"] == {"compared": 0, "same": 0}
        assert found["box_distance"]["max"] is None
        assert "6 images, for want of boxes" in table(found)
    other = every(images(seed=1), bare)
    assert names_of(result(alone, other)) == []
    assert result(alone, other)["unexplained"] == ["features"]
    shorter = every(A, lambda r: bare(rows(r, np.arange(10))))
    assert names_of(result(alone, shorter)) == ["num_features"]
    unrelated = every(images(seed=1), lambda r: bare(rows(r, np.arange(10))))
    assert names_of(result(alone, unrelated)) == []


def test_boxes_without_the_image_size():
    assert result(A, NO_SIZE)["same"]
    thousandths = every(NO_SIZE, lambda r: boxes(r, lambda b: b / 1000))
    assert result(thousandths, thousandths)["same"]
    for distance in (0.5, 0.01):
        moved = every(thousandths, lambda r, d=distance: boxes(r, lambda b: b + d))
        assert "boxes" in kinds_of(result(thousandths, moved))


def test_no_classes_but_probabilities():
    b = every(A, lambda r: changed(r, objects=None))
    assert result(A, b)["same"]
    assert result(A, b)["cls_prob_difference"]["max"] == 0
    b = every(A, lambda r: changed(r, cls_prob=r.cls_prob[:, :5]))
    assert kinds_of(result(A, b)) == {"cls_prob"}
    assert result(A, b)["unexplained"] == ["cls_prob"]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_and_boxes_that_are_no_numbers(value):
    values = A["image_3"].features.copy()
    values[3, 5] = value
    b = A | {"image_3": changed(A["image_3"], features=values)}
    for found in (result(A, b), result(b, A)):
        assert kinds_of(found) == {"non_finite"}
        assert found["feature_error"]["non_finite_in_one"] == 1
        assert found["feature_error"]["max"] == 0
        assert found["unexplained"] == ["non_finite"]
        assert "NaN or infinite regions" in table(found)
        json.loads(json_text(found))
    assert result(b, b)["same"]
    assert result(b, b)["a"]["non_finite_regions"] == 1
    bad_box = A | {"image_3": boxes(A["image_3"], lambda b: b + [[value, 0, 0, 0]] * 40)}
    assert kinds_of(result(A, bad_box)) == {"boxes"}
    json.loads(json_text(result(bad_box, bad_box)))


@pytest.mark.parametrize(("a", "b"), [(0, 1), (1e38, -1e38), (1e-45, 1e38)])
def test_extreme_features_give_json(a, b):
    first, second = (
        every(A, lambda r, value=value: features(r, lambda f: f * 0 + np.float32(value)))
        for value in (a, b)
    )
    found = result(first, second)
    assert kinds_of(found) == {"features"}
    json.loads(json_text(found))
    assert result(first, first)["same"]


def test_large_float16_features_are_compared_in_more_bits():
    a = every(A, lambda r: features(r, lambda f: (f * 10000).astype(np.float16)))
    found = result(a, a)
    assert found["same"]
    assert found["a"]["features"] == ["float16 x 32"]
    b = every(a, lambda r: features(r, lambda f: f.astype(np.float32) * np.float32(1.01)))
    assert abs(result(a, b)["feature_error"]["median"] - 0.01) < 1e-4


def test_other_dimensions_in_one_image():
    b = A | {"image_4": features(A["image_4"], lambda f: f[:, :8])}
    found = result(A, b)
    assert kinds_of(found) == {"dimension"}
    assert found["b"]["features"] == ["float32 x 8", "float32 x 32"]
    assert found["feature_error"]["incomparable_images"] == 1
