"""Every known cause of a difference, made on purpose, is named, and no other."""

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
    normalised,
    result,
    rows,
    scale_of,
    xywh,
)

A = images()
_ENDS = np.array([0, 0, 1, 1])


def network(regions):
    return boxes(regions, lambda b: b * scale_of(regions))


def shuffled(regions):
    return rows(regions, np.random.default_rng(1).permutation(len(regions)))


def noisy(amount, share=1.0):
    """This share of the features off by this much, relative to their length, in any direction."""

    def change(regions):
        noise = np.random.default_rng(2).standard_normal(regions.features.shape)
        noise *= amount * np.linalg.norm(regions.features, axis=1, keepdims=True)
        noise /= np.sqrt(noise.shape[1])
        noise[round(share * len(noise)) :] = 0
        return features(regions, lambda f: f + noise.astype(np.float32))

    return change


def mirrored(share):
    """This share of the boxes elsewhere in the image."""

    def change(regions):
        count = round(share * len(regions))
        bbox = regions.bbox.copy()
        bbox[:count] = [405, 0, 405, 0] + [-1, 1, -1, 1] * bbox[:count, [2, 1, 0, 3]]
        return changed(regions, bbox=bbox)

    return change


def another_layer(regions):
    """A function of the features, but pointing elsewhere."""
    mix = np.random.default_rng(3).standard_normal((regions.features.shape[1],) * 2)
    return features(regions, lambda f: (f @ mix).clip(min=0).astype(np.float32))


def halved(regions):
    return features(regions, lambda f: f.astype(np.float16).astype(np.float32))


def bfloat16(regions):
    def rounded(values):
        return ((values.view(np.uint32) + 0x8000) & 0xFFFF0000).view(np.float32)

    return features(regions, rounded)


def with_background(regions):
    none = np.full((len(regions), 1), 0.01, np.float32)
    cls_prob = np.concatenate([none, regions.cls_prob], axis=1)
    return changed(regions, cls_prob=cls_prob, objects=regions.objects + 1)


def background_wins(regions):
    """As extracted with the background: it is the most probable class of some regions."""
    regions = with_background(regions)
    objects, cls_prob = regions.objects.copy(), regions.cls_prob.copy()
    objects[::4], cls_prob[::4, 0] = 0, 1
    return changed(regions, objects=objects, cls_prob=cls_prob)


def adaptive(regions):
    return rows(regions, np.arange(10 + int(regions.features[0, 0] * 1000) % 20))


def higher_threshold(regions):
    """Half of the regions count; others fill up."""
    bbox = regions.bbox.copy()
    bbox[20:] = bbox[20:, [0, 1, 0, 1]] + [60, 0, 77, 23]
    return changed(regions, bbox=bbox, num_boxes=20)


CONVENTION = {"box_convention"}, {"conventions"}
# Name: change, causes, kinds of reasons.
CHANGES = {
    "nothing": (lambda r: r, set(), set()),
    "xywh": (lambda r: boxes(r, xywh), *CONVENTION),
    "xywh_inclusive": (lambda r: boxes(r, lambda b: xywh(b, 1)), *CONVENTION),
    "yxyx": (lambda r: boxes(r, lambda b: b[:, [1, 0, 3, 2]]), *CONVENTION),
    "exclusive": (lambda r: boxes(r, lambda b: b + _ENDS), *CONVENTION),
    "network": (network, *CONVENTION),
    "network_exclusive": (lambda r: boxes(network(r), lambda b: b + _ENDS), *CONVENTION),
    "network_of_some_rows": (
        lambda r: rows(network(r), np.arange(20)),
        {"box_convention", "num_features"},
        {"conventions", "boxes"},
    ),
    "network_xywh_shuffled": (
        lambda r: shuffled(boxes(network(r), xywh)),
        {"box_convention", "order"},
        {"conventions"},
    ),
    "normalised": (normalised, *CONVENTION),
    "normalised_xywh": (lambda r: boxes(normalised(r), xywh), *CONVENTION),
    "background": (with_background, {"background"}, {"classes", "cls_prob"}),
    "background_wins": (background_wins, {"background"}, {"classes", "cls_prob"}),
    "class_ids_only": (
        lambda r: changed(r, objects=r.objects + 1),
        {"background"},
        {"classes"},
    ),
    "fewer_regions": (lambda r: rows(r, np.arange(15)), {"num_features"}, {"boxes"}),
    "adaptive": (adaptive, {"num_features"}, {"boxes"}),
    "every_second": (lambda r: rows(r, np.arange(0, 40, 2)), {"num_features"}, {"boxes"}),
    "confidence_threshold": (higher_threshold, {"confidence_threshold"}, {"boxes"}),
    "order": (shuffled, {"order"}, set()),
    "layer": (another_layer, {"layer"}, {"features"}),
    "layer_without_classes": (
        lambda r: changed(another_layer(r), objects=None, cls_prob=None),
        {"layer"},
        {"features"},
    ),
    "layer_and_background": (
        lambda r: changed(another_layer(r), objects=r.objects + 1, cls_prob=None),
        {"layer", "background"},
        {"features", "classes"},
    ),
    "dimension": (lambda r: features(r, lambda f: f[:, :16]), {"layer"}, {"dimension"}),
    "other_head": (
        lambda r: changed(another_layer(r), objects=(r.objects + 2) % 9),
        {"weights"},
        {"features", "classes"},
    ),
    "float16": (lambda r: features(r, lambda f: f.astype(np.float16)), {"rounding"}, set()),
    "float16_values": (halved, {"rounding"}, set()),
    "bfloat16": (bfloat16, {"rounding"}, {"features"}),
    "tf32": (noisy(5e-4), {"precision"}, set()),
    "autocast": (noisy(8e-3), {"precision"}, {"features"}),
    "tf32_and_some_other_boxes": (
        lambda r: mirrored(0.1)(noisy(5e-4)(r)),
        {"precision"},
        {"boxes"},
    ),
    "float32_rounding": (noisy(1e-6), set(), set()),
    "several": (
        lambda r: rows(changed(normalised(halved(r)), objects=r.objects + 1), np.arange(12)),
        {"box_convention", "background", "num_features", "rounding"},
        {"conventions", "boxes", "classes"},
    ),
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("turned", [False, True], ids=["", "turned"])
def test_the_right_cause_and_no_other(name, turned):
    change, expected, kinds = CHANGES[name]
    b = every(A, change)
    found = result(b, A) if turned else result(A, b)
    assert set(names_of(found)) == expected
    assert kinds_of(found) == kinds
    assert found["same"] == (not kinds)
    assert found["unexplained"] == []
    if "box_convention" in expected:
        assert found["regions"]["matched"] == min(found["a"]["regions"], found["b"]["regions"])
        assert found["box_distance"]["max"] < 0.01


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ("network", "{}'s boxes are in network pixels"),
        ("exclusive", "x2 and y2 of {}'s"),
        ("normalised", "{}'s boxes are normalised"),
        ("background", "of {} are one more"),
        ("confidence_threshold", "{} has the smaller num_boxes"),
        ("float16", "All of {}'s features are float16"),
    ],
)
def test_which_store_is_said_to_be_which(change, text):
    b = every(A, CHANGES[change][0])
    assert text.format("B") in result(A, b)["opinions"][0]["text"]
    assert text.format("A") in result(b, A)["opinions"][0]["text"]


@pytest.mark.parametrize(
    ("change", "unexplained"),
    [
        (lambda r: features(r, lambda f: f + np.float32(0.15)), ["features"]),
        (lambda r: features(r, lambda f: f * np.float32(1.01)), ["features"]),
        (lambda r: features(r, lambda f: f * np.float32(1.0005)), []),
        (noisy(8e-3, share=0.7), ["features"]),
        (lambda r: mirrored(0.3)(noisy(8e-3)(r)), ["boxes", "features"]),
        (lambda r: mirrored(0.3)(another_layer(r)), ["boxes", "features"]),
        (lambda r: changed(r, cls_prob=r.cls_prob**2), ["cls_prob"]),
        (lambda r: changed(r, num_boxes=20), ["num_boxes"]),
    ],
    ids=str,
)
def test_nothing_known_fits(change, unexplained):
    a = every(A, lambda r: changed(r, num_boxes=30)) if unexplained == ["num_boxes"] else A
    found = result(a, every(a, change))
    assert names_of(found) == []
    assert found["unexplained"] == unexplained


def test_other_weights():
    found = result(A, images(seed=1))
    assert names_of(found) == ["weights"]
    assert found["unexplained"] == []
    assert found["regions"]["share_of_a"] < 0.02
    other_model = every(images(seed=1), lambda r: features(r, lambda f: f[:, :16]))
    assert names_of(result(A, other_model)) == ["weights"]
    both_normalised = (every(images(seed=seed), normalised) for seed in (0, 1))
    assert names_of(result(*both_normalised)) == ["weights"]


def test_other_images_under_the_same_names():
    other = dict(zip(A, [*list(A.values())[1:], A["image_0"]], strict=True))
    found = result(A, other)
    assert names_of(found) == ["weights"]
    assert kinds_of(found) >= {"image_size", "boxes"}
    assert "such as image_0" in next(r["text"] for r in found["reasons"])


def test_a_threshold_above_another():
    a = every(A, lambda r: changed(r, num_boxes=30))
    found = result(a, every(a, higher_threshold))
    assert names_of(found) == ["confidence_threshold"]
    assert kinds_of(found) == {"boxes", "num_boxes"}


def test_num_boxes_smaller_in_either_store_is_no_threshold():
    def fewer(which):
        return {
            name: changed(r, num_boxes=20 if i % 2 == which else 30)
            for i, (name, r) in enumerate(A.items())
        }

    found = result(fewer(0), every(fewer(1), mirrored(0.2)))
    assert names_of(found) == []


def test_a_few_regions_are_no_evidence():
    few = images(count=1, regions=4)
    for change in ("layer", "autocast", "other_head"):
        assert names_of(result(few, every(few, CHANGES[change][0]))) == [], change
    assert names_of(result(few, images(count=1, regions=4, seed=1))) == []


def test_few_boxes_an_image_have_the_convention_of_the_others():
    a = images() | {f"few_{i}": r for i, r in enumerate(images(4, 2, seed=3).values())}
    for change in ("network", "normalised", "xywh"):
        found = result(a, every(a, CHANGES[change][0]))
        assert found["regions"]["share_of_a"] == 1, change
        assert found["box_distance"]["max"] < 0.01


def test_the_size_is_taken_from_the_store_that_has_it():
    bare = every(A, lambda r: changed(r, image_width=None, image_height=None))
    other = every(bare, lambda r: boxes(r, lambda b: b * scale_of(A["image_0"])))
    one = {"image_0": A["image_0"]}
    for found in (result(one, other, common_only=True), result(other, one, common_only=True)):
        assert names_of(found) == ["box_convention"]
        assert "network pixels" in found["opinions"][0]["text"]


def test_a_conversion_of_one_image_only_is_no_convention():
    found = result(A, A | {"image_0": network(A["image_0"])})
    assert names_of(found) == []
    assert kinds_of(found) == {"boxes"}


def test_background_columns_are_left_out_of_the_difference():
    def with_column(regions):
        column = np.full((len(regions), 1), 0.3, np.float32)
        return changed(regions, cls_prob=np.hstack([column, regions.cls_prob]))

    for found in (result(A, every(A, with_column)), result(every(A, with_column), A)):
        assert names_of(found) == ["background"]
        assert found["cls_prob_difference"]["max"] == 0


def test_rounding_is_told_from_noise():
    found = result(every(A, lambda r: halved(noisy(3e-4)(r))), every(A, halved))
    assert names_of(found) == ["precision"]  # both are float16
    b = every(A, halved)
    assert names_of(result(b | {"image_5": A["image_5"]}, b)) == []  # without an error
    b = every(A, noisy(3e-4)) | {"image_5": halved(A["image_5"])}
    assert names_of(result(A, b)) == ["precision"]  # in one image only
