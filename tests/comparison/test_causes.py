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
    relu_like,
    result,
    rows,
    scale_of,
    xywh,
)
from support import some_regions

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
    "order": (shuffled, {"order"}, set()),
    "layer": (another_layer, {"layer"}, {"features"}),
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
    "float16": (lambda r: features(r, lambda f: f.astype(np.float16)), {"precision"}, set()),
    "float16_values": (halved, {"precision"}, set()),
    "tf32": (noisy(5e-4), {"precision"}, set()),
    "autocast": (noisy(8e-3), {"precision"}, {"features"}),
    "float32_rounding": (noisy(1e-6), set(), set()),
    "several": (
        lambda r: rows(changed(normalised(halved(r)), objects=r.objects + 1), np.arange(12)),
        {"box_convention", "background", "num_features", "precision"},
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
        ("network", "{}'s boxes are x1, y1, x2, y2 in network pixels"),
        ("exclusive", "{}'s boxes are x1, y1, x2, y2 in original pixels, exclusive"),
        ("background", "of {} are one more"),
        ("float16", "{}'s are float16"),
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
        (noisy(8e-3, share=0.7), ["features"]),
        (lambda r: mirrored(0.3)(another_layer(r)), ["boxes", "features"]),
        (lambda r: changed(r, cls_prob=r.cls_prob**2), ["cls_prob"]),
        (lambda r: changed(r, num_boxes=20), ["num_boxes"]),
    ],
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


def test_other_images_under_the_same_names():
    other = dict(zip(A, [*list(A.values())[1:], A["image_0"]], strict=True))
    found = result(A, other)
    assert names_of(found) == ["weights"]
    assert kinds_of(found) >= {"image_size", "boxes"}
    assert "such as image_0" in next(r["text"] for r in found["reasons"])


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


def test_rounding_to_float16_is_told_from_noise():
    b = every(A, halved)
    assert "float16 numbers" in result(A, b)["opinions"][0]["text"]
    noise = result(every(A, lambda r: halved(noisy(3e-4)(r))), b)  # both are float16
    assert "lower precision" in noise["opinions"][0]["text"]
    assert names_of(result(b | {"image_5": A["image_5"]}, b)) == []  # without an error


# Boxes clipped to the padding of a batch


def clipped(regions, right, bottom):
    return boxes(regions, lambda b: np.minimum(b, [right, bottom, right, bottom]))


def border(ends, width=640, height=427):
    """40 regions, ten of which end at these x. An image of 640 x 427 has scale 1.8735."""
    regions = some_regions(
        count=40,
        num_boxes=40,
        features=relu_like(0, 40),
        image_width=width,
        image_height=height,
    )
    bbox = regions.bbox.copy()
    bbox[:10] = [[625, 30 * i, x, 30 * i + 25] for i, x in enumerate(ends)]
    return {"x": changed(regions, bbox=bbox)}


def test_clipping_to_the_padding_of_a_batch():
    padded = border(range(630, 710, 8))
    own = every(padded, lambda r: clipped(r, (1216 - 1) / (800 / 427), 427))
    batch = every(padded, lambda r: clipped(r, 660.0, 427))
    for found, letter in ((result(own, batch), "B"), (result(batch, own), "A")):
        assert names_of(found) == ["batch_clipping"]
        assert f"boxes of {letter} beyond" in found["opinions"][0]["text"]
        assert found["unexplained"] == []
    assert names_of(result(batch, batch)) == []
    both = result(batch, every(padded, lambda r: clipped(r, 690.0, 427)))
    assert "A and B was extracted" in both["opinions"][0]["text"]


def test_boxes_beyond_any_batch_are_no_clipping():
    padded = border(range(630, 710, 8))
    far = every(padded, lambda r: boxes(r, lambda b: np.where(b > 650, b + 200, b)))
    assert names_of(result(every(padded, lambda r: clipped(r, 639, 427)), far)) == []


def test_other_weights_with_boxes_past_the_padding():
    def past(regions):
        bbox = regions.bbox.copy()
        if regions.image_width < 1000:
            bbox[::9] = [300, 5, regions.image_width + 15, 9]
        return changed(regions, bbox=bbox)

    assert names_of(result(images(), every(images(seed=1), past))) == ["weights"]
