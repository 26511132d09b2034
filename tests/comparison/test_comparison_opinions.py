"""Every known cause of a difference, made on purpose, gets its opinion and no other."""

import numpy as np
import pytest
from comparison_changes import CHANGES, rotated
from comparison_stores import (
    boxes,
    changed,
    every,
    features,
    images,
    kinds_of,
    names_of,
    normalised,
    result,
    rows,
    scale_of,
)

A = images()


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("turned", [False, True], ids=["", "turned"])
def test_the_right_opinion_and_no_other(name, turned):
    change, expected, kinds = CHANGES[name]
    b = every(A, change)
    found = result(b, A) if turned else result(A, b)
    assert set(names_of(found)) == expected
    assert kinds_of(found) == kinds
    assert found["same"] == (not kinds)
    assert found["unexplained"] == []
    if "box_unit" in expected or "box_layout" in expected or "box_ends" in expected:
        assert found["regions"]["matched"] == min(found["a"]["regions"], found["b"]["regions"])
        assert found["box_distance"]["max"] < 0.01


def test_which_store_is_said_to_be_which():
    network = every(A, lambda r: boxes(r, lambda b: b * scale_of(r)))
    for found, letter in ((result(A, network), "B"), (result(network, A), "A")):
        (opinion,) = found["opinions"]
        assert opinion["text"].startswith(f"{letter}'s boxes are in network pixels")
    for change, said in (
        ("exclusive", "x2 and y2 of {}'s"),
        ("normalised", "{}'s boxes are normalised"),
        ("background", "of {} are one more"),
        ("float16", "All of {}'s features are float16"),
    ):
        b = every(A, CHANGES[change][0])
        assert said.format("B") in result(A, b)["opinions"][0]["text"], change
        assert said.format("A") in result(b, A)["opinions"][0]["text"], change


def test_another_layer_with_negative_numbers():
    def signed(regions):
        return features(regions, lambda f: rotated(f) - 0.5)

    found = result(A, every(A, signed))
    assert names_of(found) == ["layer"]
    assert "negative numbers in B only" in found["opinions"][0]["text"]


def test_other_weights():
    found = result(A, images(seed=1))
    assert names_of(found) == ["weights"]
    assert found["unexplained"] == []
    assert found["regions"]["share_of_a"] < 0.02
    other_model = every(images(seed=1), lambda r: features(r, lambda f: f[:, :16]))
    assert names_of(result(A, other_model)) == ["weights"]


def test_other_images_under_the_same_names():
    other = dict(zip(A, [*list(A.values())[1:], A["image_0"]], strict=True))
    assert names_of(result(A, other)) == ["weights"]
    assert kinds_of(result(A, other)) >= {"image_size", "boxes"}
    assert result(A, other)["unexplained"] == []


def test_some_regions_chosen_otherwise():
    def some_mirrored(bbox):
        other = [405, 0, 405, 0] + [-1, 1, -1, 1] * bbox[:, [2, 1, 0, 3]]
        return np.where(np.arange(40)[:, None] % 5, bbox, other)

    found = result(A, every(A, lambda r: boxes(r, some_mirrored)))
    assert names_of(found) == []
    assert kinds_of(found) == {"boxes"}


def test_num_boxes_is_judged_where_both_stores_keep_it():
    tsv = every(A, lambda r: changed(r, num_boxes=40))
    kept = every(A, lambda r: changed(r, num_boxes=30))
    fewer = every(A, lambda r: changed(r, num_boxes=20))
    for found in (result(tsv, kept), result(kept, tsv)):
        assert found["same"]
        assert not found["num_boxes"]["judged"]
    assert result(kept, fewer)["unexplained"] == ["num_boxes"]


def test_images_of_network_scale_1_are_no_evidence_against_network_pixels():
    (opinion,) = result(A, every(A, CHANGES["network_pixels"][0]))["opinions"]
    assert "in 6 of 6 images" in opinion["text"]


def test_nothing_known_fits():
    b = every(A, lambda r: features(r, lambda f: f + np.float32(0.15)))
    found = result(A, b)
    assert names_of(found) == []
    assert found["unexplained"] == ["features"]
    b = every(A, lambda r: changed(r, cls_prob=r.cls_prob**2))
    assert result(A, b)["unexplained"] == ["cls_prob"]


def test_a_few_regions_are_no_evidence():
    few = images(count=1, regions=4)
    for change in ("layer", "background", "autocast", "other_head"):
        found = result(few, every(few, CHANGES[change][0]))
        assert names_of(found) in ([], ["background"] if change == "background" else []), change
    assert names_of(result(few, images(count=1, regions=4, seed=1))) == []


def test_few_boxes_an_image_take_the_convention_of_the_others():
    a = images() | {f"few_{i}": r for i, r in enumerate(images(4, 2, seed=3).values())}
    for change in ("network_pixels", "normalised", "xywh"):
        found = result(a, every(a, CHANGES[change][0]))
        assert found["regions"]["share_of_a"] == 1, change
        assert found["box_distance"]["max"] < 0.01


def test_several_at_once():
    b = every(A, lambda r: rows(changed(normalised(r), objects=r.objects + 1), np.arange(12)))
    b = every(b, lambda r: features(r, lambda f: f.astype(np.float16)))
    assert set(names_of(result(A, b))) == {"box_unit", "background", "num_features", "rounding"}
