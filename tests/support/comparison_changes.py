"""What can make two stores different, with the opinions and the kinds of differences it gives."""

import numpy as np
from comparison_stores import boxes, changed, features, normalised, rows, scale_of, xywh

_ENDS = np.array([0, 0, 1, 1])


def shuffled(regions):
    return rows(regions, np.random.default_rng(1).permutation(len(regions)))


def noisy(amount):
    """Features off by about this much, relative to their length, in any direction."""

    def change(regions):
        noise = np.random.default_rng(2).standard_normal(regions.features.shape)
        scale = np.linalg.norm(regions.features, axis=1) / np.sqrt(regions.features.shape[1])
        return features(regions, lambda f: f + (amount * scale[:, None] * noise).astype(f.dtype))

    return change


def rotated(values):
    """Another layer's features: a function of these, but pointing elsewhere."""
    mix = np.random.default_rng(3).standard_normal((values.shape[1],) * 2)
    return (values @ mix).clip(min=0).astype(np.float32)


def bfloat16(values):
    return ((values.view(np.uint32) + 0x8000) & 0xFFFF0000).view(np.float32)


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


def every_second(regions):
    return rows(regions, np.arange(0, len(regions), 2))


CHANGES = {
    "xywh": (lambda r: boxes(r, xywh), {"box_layout"}, {"conventions"}),
    "xywh_inclusive": (
        lambda r: boxes(r, lambda b: xywh(b, 1)),
        {"box_layout"},
        {"conventions"},
    ),
    "yxyx": (lambda r: boxes(r, lambda b: b[:, [1, 0, 3, 2]]), {"box_layout"}, {"conventions"}),
    "exclusive": (lambda r: boxes(r, lambda b: b + _ENDS), {"box_ends"}, {"conventions"}),
    "network_pixels": (
        lambda r: boxes(r, lambda b: b * scale_of(r)),
        {"box_unit"},
        {"conventions"},
    ),
    "network_pixels_exclusive": (
        lambda r: boxes(r, lambda b: b * scale_of(r) + _ENDS),
        {"box_unit", "box_ends"},
        {"conventions"},
    ),
    "network_pixels_of_some_rows": (
        lambda r: rows(boxes(r, lambda b: b * scale_of(r)), np.arange(20)),
        {"box_unit", "num_features"},
        {"conventions", "boxes"},
    ),
    "network_pixels_xywh_shuffled": (
        lambda r: shuffled(boxes(r, lambda b: xywh(b * scale_of(r)))),
        {"box_unit", "box_layout", "order"},
        {"conventions"},
    ),
    "normalised": (normalised, {"box_unit"}, {"conventions"}),
    "normalised_xywh": (
        lambda r: boxes(normalised(r), xywh),
        {"box_unit", "box_layout"},
        {"conventions"},
    ),
    "background": (with_background, {"background"}, {"classes", "cls_prob"}),
    "background_wins": (background_wins, {"background"}, {"classes", "cls_prob"}),
    "class_ids_only": (
        lambda r: changed(r, objects=r.objects + 1),
        {"background"},
        {"classes"},
    ),
    "fewer_regions": (
        lambda r: rows(r, np.arange(15)),
        {"num_features"},
        {"boxes"},
    ),
    "adaptive": (adaptive, {"num_features"}, {"boxes"}),
    "every_second": (every_second, {"num_features"}, {"boxes"}),
    "order": (shuffled, {"order"}, set()),
    "layer": (lambda r: features(r, rotated), {"layer"}, {"features"}),
    "layer_without_classes": (
        lambda r: changed(features(r, rotated), objects=None, cls_prob=None),
        {"layer"},
        {"features"},
    ),
    "dimension": (lambda r: features(r, lambda f: f[:, :16]), {"layer"}, {"dimension"}),
    "other_head": (
        lambda r: changed(features(r, rotated), objects=(r.objects + 2) % 9),
        {"weights"},
        {"features", "classes"},
    ),
    "float16": (lambda r: features(r, lambda f: f.astype(np.float16)), {"rounding"}, set()),
    "float16_values": (
        lambda r: features(r, lambda f: f.astype(np.float16).astype(np.float32)),
        {"rounding"},
        set(),
    ),
    "bfloat16": (lambda r: features(r, bfloat16), {"rounding"}, {"features"}),
    "tf32": (noisy(5e-4), {"precision"}, set()),
    "autocast": (noisy(8e-3), {"precision"}, {"features"}),
    "float32_rounding": (noisy(1e-6), set(), set()),
    "nothing": (lambda r: r, set(), set()),
}
