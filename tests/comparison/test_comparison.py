"""The figures, and what is judged."""

import json
import math
import weakref

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

from vmb_d2.comparison import Settings, compare, json_text, table
from vmb_d2.errors import ConfigError

A = images()


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
    assert found["num_boxes"] == {"a": 240, "b": 240, "same_images": 6, "judged": False}


def test_identical_stores_of_unusual_boxes():
    """Sides for corners, boxes without an extent, no number at all: equal is equal."""
    for values in (
        np.concatenate([A["image_0"].bbox[:, :2], A["image_0"].bbox[:, :2] * 0 + 30], axis=1),
        np.zeros((40, 4), np.float32),
        A["image_0"].bbox / 1000,
    ):
        a = {"x": changed(A["image_0"], bbox=values)}
        assert result(a, a)["same"]
        assert names_of(result(a, a)) == []


def test_figures_of_one_image():
    values, bbox = A["image_1"].features.copy(), A["image_1"].bbox.copy()
    values[3] *= 1.25
    bbox[5, 2] += 0.75
    objects = A["image_1"].objects.copy()
    objects[:2] = (objects[:2] + 2) % 9
    cls_prob = A["image_1"].cls_prob.copy()
    cls_prob[7, 2] += 0.125
    b = A | {
        "image_1": changed(
            A["image_1"],
            features=values,
            bbox=bbox,
            objects=objects,
            cls_prob=cls_prob,
            num_boxes=38,
        )
    }
    found = result(A, b)
    assert found["feature_error"]["max"] == pytest.approx(0.25)
    assert found["feature_error"]["median"] == 0
    assert found["feature_error"]["worst_image"] == "image_1"
    assert found["box_distance"]["max"] == pytest.approx(0.75)
    assert found["classes"] == {"compared": 240, "same": 238}
    assert found["cls_prob_difference"]["max"] == pytest.approx(0.125)
    assert found["num_boxes"] == {"a": 240, "b": 238, "same_images": 5, "judged": False}
    assert found["same"]  # each is less than 1 % of the regions


def test_one_region_in_a_hundred_is_the_limit():
    def worse(count, **values):
        new = {key: change(getattr(a["image_0"], key), count) for key, change in values.items()}
        return {"image_0": changed(a["image_0"], **new)}

    def first(change):
        def function(array, count):
            array = array.copy()
            array[:count] = change(array[:count])
            return array

        return function

    a = every(images(count=1, regions=200), lambda r: changed(r, num_boxes=199))
    for values, kind in (
        ({"features": first(lambda f: f * 1.01)}, "features"),
        ({"bbox": first(lambda b: b + 200)}, "boxes"),
        ({"objects": first(lambda o: (o + 3) % 9)}, "classes"),
        ({"cls_prob": first(lambda p: p + 0.01)}, "cls_prob"),
        ({"num_boxes": lambda n, count: n - count}, "num_boxes"),
    ):
        assert result(a, worse(1, **values))["same"], kind
        assert kinds_of(result(a, worse(3, **values))) == {kind}


def test_the_settings_hold():
    b = every(A, lambda r: features(r, lambda f: f * 1.01))
    assert not result(A, b)["same"]
    assert result(A, b, tolerance=0.011)["same"]
    assert not result(A, b, tolerance=0.009)["same"]
    b = every(A, lambda r: rows(r, np.arange(36)))
    assert kinds_of(result(A, b)) == {"boxes"}
    assert result(A, b, matched=0.9)["same"]
    b = every(A, lambda r: boxes(r, lambda b: b + 0.1))
    assert result(A, b)["same"]
    assert kinds_of(result(A, b, iou=0.999)) == {"boxes"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"iou": 0},
        {"iou": 1.1},
        {"iou": math.nan},
        {"tolerance": -1},
        {"tolerance": math.inf},
        {"tolerance": math.nan},
        {"matched": 1.5},
        {"matched": math.nan},
        {"limit": 0},
    ],
)
def test_settings_out_of_range(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
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


def test_one_image_of_each_store_at_a_time():
    """Memory doesn't grow with the images: none is kept."""

    class Counting(MemoryStore):
        alive, most = [0], [0]

        def read(self, name):
            regions = changed(self.regions[name], features=self.regions[name].features.copy())
            self.alive[0] += 1
            self.most[0] = max(self.most[0], self.alive[0])
            weakref.finalize(regions.features, lambda: self.alive.__setitem__(0, self.alive[0] - 1))
            return regions

    compare(Counting(images(30)), Counting(images(30)))
    assert Counting.most[0] <= 4  # the last images are let go of after the next are read


def test_the_table_says_it_all():
    b = every(A, lambda r: features(r, lambda f: f * 1.5))
    b = {f"COCO_{name}": regions for name, regions in b.items()}
    text = table(result(A, b))
    for expected in (
        "A: A\nB: B\n",
        "images                  6                       6\n",
        "features                float32 x 32            float32 x 32\n",
        "paired by               the integer after the last underscore\n",
        "regions matched         240: 100.00% of A, 100.00% of B\n",
        "box distance, px        median 0, 99th percentile 0, largest 0\n",
        "feature error           median 0.5, 99th percentile 0.5, largest 0.5, in image_",
        "same class              240 of 240\n",
        "same num_boxes          in 6 of 6 images\n",
        "DIFFERENT:\n  - 99th percentile of the feature errors: 5.0e-01, above 1.0e-03\n",
        "No known cause fits the difference in: features.\n",
    ):
        assert expected in text, expected
