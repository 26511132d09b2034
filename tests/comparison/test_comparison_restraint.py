"""Figures that come near an opinion's rule without meeting it: no wrong opinion."""

import numpy as np
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
)
from support import some_regions

from vmb_d2.comparison.alignment import Convention, own_convention

A = images()


def mirrored(share):
    """This share of the boxes elsewhere in the image."""

    def change(regions):
        count = round(share * len(regions))
        bbox = regions.bbox.copy()
        bbox[:count] = [405, 0, 405, 0] + [-1, 1, -1, 1] * bbox[:count, [2, 1, 0, 3]]
        return changed(regions, bbox=bbox)

    return change


def noisy(amount, share=1.0):
    """This share of the features off by this much, in any direction."""

    def change(regions):
        noise = np.random.default_rng(2).standard_normal(regions.features.shape)
        noise *= amount * np.linalg.norm(regions.features, axis=1, keepdims=True)
        noise /= np.sqrt(noise.shape[1])
        noise[round(share * len(noise)) :] = 0
        return features(regions, lambda f: f + noise.astype(np.float32))

    return change


def halved(regions):
    return features(regions, lambda f: f.astype(np.float16).astype(np.float32))


def unrelated(regions):
    return features(regions, lambda f: relu_like(99, len(f)))


def test_the_size_is_taken_from_the_store_that_has_it():
    bare = every(A, lambda r: changed(r, image_width=None, image_height=None))
    network = every(bare, lambda r: boxes(r, lambda b: b * scale_of(A["image_0"])))
    one = {"image_0": A["image_0"]}
    for found in (result(one, network, common_only=True), result(network, one, common_only=True)):
        assert names_of(found) == ["box_unit"]
        assert "network pixels" in found["opinions"][0]["text"]


def test_one_image_in_another_convention_is_no_opinion():
    b = A | {"image_0": boxes(A["image_0"], lambda b: b * scale_of(A["image_0"]))}
    found = result(A, b)
    assert names_of(found) == []
    assert kinds_of(found) == {"conventions"}
    assert found["unexplained"] == ["conventions"]


def test_a_store_of_many_conventions_is_no_opinion():
    a = images(count=9)
    changes = [lambda r: boxes(r, lambda b: b * scale_of(r))] * 4
    changes += [lambda r: boxes(r, lambda b: b[:, [1, 0, 3, 2]])] * 3 + [lambda r: r] * 2
    b = {name: change(r) for change, (name, r) in zip(changes, a.items(), strict=True)}
    found = result(a, b)
    assert names_of(found) == []
    assert found["unexplained"] == ["conventions"]


def test_boxes_that_end_just_before_they_begin_are_no_width_and_height():
    bbox = np.array([[5, 9, 4.2, 20], [7, 7, 6.5, 6.5], [3, 3, 30, 30]], np.float32)
    assert own_convention(bbox, (400, 600), Convention()) == Convention()
    bbox[0, 2] = 1
    assert own_convention(bbox, (400, 600), Convention()).layout == "xywh"


def test_normalised_boxes_of_unknown_size_overlap_as_large_ones_do():
    bare = every(A, lambda r: changed(r, image_width=None, image_height=None))
    a = every(bare, lambda r: boxes(r, lambda b: b / 1000))
    moved = every(a, lambda r: boxes(r, lambda b: b + 0.01))
    assert "boxes" in kinds_of(result(a, moved))


def test_normalised_boxes_that_differ_are_not_taken_for_pixels():
    a, b = (every(images(seed=seed), normalised) for seed in (0, 1))
    found = result(a, b)
    assert names_of(found) == ["weights"]
    assert found["regions"]["share_of_a"] < 0.02


def border(bbox_ends, width=800, height=800):
    """40 regions, ten of which end at these x; the image is its own padding."""
    regions = some_regions(
        count=40,
        num_boxes=40,
        features=relu_like(0, 40),
        image_width=width,
        image_height=height,
    )
    bbox = regions.bbox.copy()
    bbox[:10] = [[700, 30 * i, x, 30 * i + 25] for i, x in enumerate(bbox_ends)]
    return {"x": changed(regions, bbox=bbox)}


def test_an_image_that_needs_no_padding_is_not_clipped_to_the_image():
    own = border([799] * 10)
    batch = border(range(805, 905, 10))
    for found in (result(own, batch), result(batch, own)):
        assert names_of(found) == ["batch_clipping"]


def test_boxes_that_were_not_chosen_are_not_clipped():
    padded = border(np.linspace(644, 647, 10), 640, 427)
    others = border(np.linspace(500, 550, 10), 640, 427)
    for found in (result(padded, others), result(others, padded)):
        assert names_of(found) == []
        assert found["unexplained"] == ["boxes"]


def test_other_weights_with_boxes_past_the_padding():
    b = images(seed=1)

    def past(regions):
        bbox = regions.bbox.copy()
        if regions.image_width < 1000:
            bbox[::9] = [300, 5, regions.image_width + 15, 9]
        return changed(regions, bbox=bbox)

    assert names_of(result(A, every(b, past))) == ["weights"]


def test_a_region_more_at_the_top_is_no_other_order():
    a = images(count=2, regions=200)
    b = every(a, lambda r: rows(r, np.arange(1, 200)))
    longer = every(a, lambda r: rows(r, np.arange(199)))
    found = result(longer, b)
    assert found["regions"]["share_of_a"] > 0.99
    assert names_of(found) == []
    assert found["same"]


def test_background_columns_are_left_out_of_the_difference():
    def with_column(regions):
        column = np.full((len(regions), 1), 0.3, np.float32)
        return changed(regions, cls_prob=np.hstack([column, regions.cls_prob]))

    for found in (result(A, every(A, with_column)), result(every(A, with_column), A)):
        assert names_of(found) == ["background"]
        assert found["cls_prob_difference"]["max"] == 0


def test_a_probability_that_is_no_number_is_a_difference():
    def spoilt(regions):
        cls_prob = regions.cls_prob.copy()
        cls_prob[0, 0] = np.nan
        return changed(regions, cls_prob=cls_prob)

    assert kinds_of(result(A, every(A, spoilt))) == {"cls_prob"}


def test_num_boxes_is_judged_if_one_image_says_which_count():
    a = A | {"image_0": changed(A["image_0"], num_boxes=10)}
    b = A | {"image_0": changed(A["image_0"], num_boxes=30)}
    assert kinds_of(result(a, b)) == {"num_boxes"}


def test_large_float16_features_are_compared_in_more_bits():
    a = every(A, lambda r: features(r, lambda f: (f * 10000).astype(np.float16)))
    b = every(a, lambda r: features(r, lambda f: f.astype(np.float32) * np.float32(1.01)))
    assert abs(result(a, b)["feature_error"]["median"] - 0.01) < 1e-4


def test_unrelated_features_of_regions_that_are_not_the_same():
    found = result(A, every(every(A, mirrored(0.3)), unrelated))
    assert names_of(found) == []
    assert found["unexplained"] == ["boxes", "features"]


def test_another_layer_with_background():
    def change(regions):
        return changed(unrelated(regions), objects=regions.objects + 1, cls_prob=None)

    found = result(A, every(A, change))
    assert set(names_of(found)) == {"layer", "background"}


def test_noise_between_stores_that_are_both_float16():
    found = result(every(A, halved), every(every(A, noisy(3e-4)), halved))
    assert names_of(found) == ["precision"]


def test_float16_numbers_without_an_error_are_no_rounding():
    b = every(A, halved)
    a = b | {"image_5": A["image_5"]}
    assert names_of(result(a, b)) == []


def test_float16_numbers_in_one_image_only():
    b = every(A, noisy(3e-4))
    b["image_5"] = halved(A["image_5"])
    assert names_of(result(A, b)) == ["precision"]


def test_a_part_of_the_features_off_is_no_lower_precision():
    found = result(A, every(A, noisy(8e-3, share=0.7)))
    assert names_of(found) == []
    assert found["unexplained"] == ["features"]


def test_a_small_factor_is_no_lower_precision():
    found = result(A, every(A, lambda r: features(r, lambda f: f * np.float32(1.0005))))
    assert found["same"]
    assert names_of(found) == []


def test_noise_and_other_boxes():
    found = result(A, every(every(A, mirrored(0.3)), noisy(8e-3)))
    assert names_of(found) == []
    assert found["unexplained"] == ["boxes", "features"]
    found = result(A, every(every(A, mirrored(0.1)), noisy(5e-4)))
    assert names_of(found) == ["precision"]
    assert found["unexplained"] == []
