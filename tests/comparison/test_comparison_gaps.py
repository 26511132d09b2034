"""Stores that lack something: fields, regions, numbers."""

import json

import numpy as np
import pytest
from comparison_stores import (
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

from vmb_d2.comparison import json_text, table

A = images()


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
        assert "6 images by row, for want of boxes" in table(found)
    other = every(images(seed=1), bare)
    assert names_of(result(alone, other)) == []
    assert result(alone, other)["unexplained"] == ["features"]
    shorter = every(A, lambda r: bare(rows(r, np.arange(10))))
    assert names_of(result(alone, shorter)) == ["num_features"]
    unrelated = every(images(seed=1), lambda r: bare(rows(r, np.arange(10))))
    assert names_of(result(alone, unrelated)) == []


def test_boxes_without_the_image_size():
    unknown = every(A, lambda r: changed(r, image_width=None, image_height=None))
    assert result(A, unknown)["same"]
    thousandths = every(unknown, lambda r: boxes(r, lambda b: b / 1000))
    assert result(thousandths, thousandths)["same"]
    moved = every(unknown, lambda r: boxes(r, lambda b: b / 1000 + 0.5))
    assert kinds_of(result(thousandths, moved)) == {"boxes"}


def test_no_classes_but_probabilities():
    b = every(A, lambda r: changed(r, objects=None))
    assert result(A, b)["same"]
    assert result(A, b)["cls_prob_difference"]["max"] == 0
    b = every(A, lambda r: changed(r, cls_prob=r.cls_prob[:, :5]))
    assert kinds_of(result(A, b)) == {"cls_prob"}
    assert result(A, b)["unexplained"] == ["cls_prob"]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_none(value):
    def spoilt(regions):
        values = regions.features.copy()
        values[3, 5] = value
        return changed(regions, features=values)

    b = A | {"image_3": spoilt(A["image_3"])}
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


def test_extreme_features_give_json():
    for a, b in ((0, 1), (1e38, -1e38), (1e-45, 1e38)):
        first = every(A, lambda r, a=a: features(r, lambda f: f * 0 + np.float32(a)))
        second = every(A, lambda r, b=b: features(r, lambda f: f * 0 + np.float32(b)))
        found = result(first, second)
        assert kinds_of(found) == {"features"}
        json.loads(json_text(found))
    zero = every(A, lambda r: features(r, lambda f: f * 0))
    assert result(zero, zero)["same"]


def test_float16_features_do_not_overflow():
    large = every(A, lambda r: features(r, lambda f: (f * 10000).astype(np.float16)))
    found = result(large, large)
    assert found["same"]
    assert found["a"]["features"] == [{"dtype": "float16", "dimension": 32, "images": 6}]
    assert 0 < found["a"]["zeros_share"] < 1


def test_other_dimensions_in_one_image():
    b = A | {"image_4": features(A["image_4"], lambda f: f[:, :8])}
    found = result(A, b)
    assert kinds_of(found) == {"dimension"}
    assert [kind["dimension"] for kind in found["b"]["features"]] == [8, 32]
    assert found["feature_error"]["incomparable_images"] == 1
