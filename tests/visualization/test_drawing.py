"""Which boxes are shown, and how they are drawn on the image."""

import dataclasses

import numpy as np
import pytest
import support

from vmb_d2.errors import ConfigError, StoreError
from vmb_d2.structures.class_names import ClassNames
from vmb_d2.structures.regions import RegionFeatures
from vmb_d2.visualization.boxes import NEUTRAL, ShownBox, color_of, shown_boxes
from vmb_d2.visualization.drawing import draw_boxes

NAMES = ClassNames(tuple("abcdefghi"), source="names.json")
SIZE = (427, 640)
RED, GREEN, BLUE = (250, 90, 90), (90, 250, 90), (120, 120, 250)
GREY = 77


def grey(height, width):
    return np.full((height, width, 3), GREY, dtype=np.uint8)


def box(x1, y1, x2, y2, color=RED, label=None, confidence=None):
    corners = (float(x1), float(y1), float(x2), float(y2))
    return ShownBox(corners, corners, label, confidence, (), color)


def drawn(image, *boxes):
    result = np.array(draw_boxes(image, boxes))
    assert (result.shape, result.dtype) == (image.shape, np.uint8)
    return result


def changed(image):
    """x1, y1, x2, y2 of the pixels that aren't grey, inclusive."""
    rows, columns = np.nonzero((image != GREY).any(axis=2))
    return columns.min(), rows.min(), columns.max(), rows.max()


# Which boxes


def test_the_most_confident_come_first():
    regions = support.some_regions(count=7)
    boxes = shown_boxes(regions, SIZE, NAMES, top=5)
    order = np.argsort(-regions.objects_conf)[:5]
    assert [b.label for b in boxes] == [NAMES[i] for i in regions.objects[order]]
    assert [b.color for b in boxes] == [color_of(i) for i in regions.objects[order]]
    np.testing.assert_allclose(
        [b.confidence for b in boxes], regions.objects_conf[order], atol=6e-5
    )
    np.testing.assert_array_equal([b.stored for b in boxes], regions.bbox[order])
    assert len(shown_boxes(regions, SIZE, NAMES, top=50)) == 7


def test_the_likeliest_classes():
    regions = support.some_regions(count=1)
    (shown,) = shown_boxes(regions, SIZE, NAMES, top=1)
    (probabilities,) = regions.cls_prob
    assert len(shown.likeliest) == 5
    assert shown.likeliest[0] == (shown.label, shown.confidence)
    for (name, probability), index in zip(
        shown.likeliest, np.argsort(-probabilities), strict=False
    ):
        assert name == NAMES[index]
        assert probability == pytest.approx(probabilities[index], abs=6e-5)


SCORES = [[0.9, 0.31, 0.3], [0.31, 0.3, 0.1], [0.3, 0.1, 0], [0.5, 0.4, 0.35]]


def test_the_most_probable_attributes_are_before_the_class():
    regions = support.some_regions(
        count=4,
        cls_prob=None,
        objects=np.array([2, 1, 0, 3]),
        objects_conf=np.array([0.9, 0.8, 0.7, 0.6], np.float32),
        attribute_ids=np.array([[0, 1, 2], [1, 0, 2], [0, 1, 2], [2, 0, 1]]),
        attribute_scores=np.array(SCORES, np.float32),
    )
    colors = dataclasses.replace(NAMES, attributes=("red", "old", "wooden"))

    def texts(regions, names=colors):
        return [b.text for b in shown_boxes(regions, SIZE, names, top=9)]

    assert texts(regions) == ["red old c 0.90", "old b 0.80", "a 0.70", "wooden red d 0.60"]
    assert texts(regions, NAMES) == ["c 0.90", "b 0.80", "a 0.70", "d 0.60"]
    best = {"attrs_id": np.array([2, 0, 1, 1]), "attrs_conf": np.array([0.9, 0.1, 0, 0.4])}
    alone = dataclasses.replace(regions, attribute_ids=None, attribute_scores=None, **best)
    assert texts(alone) == ["wooden c 0.90", "b 0.80", "a 0.70", "old d 0.60"]
    few = dataclasses.replace(NAMES, attributes=("red",), attribute_source="a.txt")
    with pytest.raises(ConfigError, match=r"a\.txt has 1 names, none for the attribute 1"):
        shown_boxes(regions, SIZE, few, top=9)


def test_the_background_has_its_name_and_color():
    cls_prob = np.eye(10, dtype=np.float32)[[0, 3]]
    regions = support.some_regions(count=2, cls_prob=cls_prob, objects=cls_prob.argmax(axis=1))
    boxes = shown_boxes(regions, SIZE, NAMES, top=9)
    assert [b.label for b in boxes] == ["background", "c"]
    assert [b.color for b in boxes] == [NEUTRAL, color_of(2)]


def test_without_probabilities():
    confidence = np.array([0.1, 0.3, 0.2], np.float32)
    regions = support.some_regions(count=3, cls_prob=None, objects_conf=confidence)
    boxes = shown_boxes(regions, SIZE, NAMES, top=9)
    assert [b.confidence for b in boxes] == [0.3, 0.2, 0.1]
    assert {b.likeliest for b in boxes} == {()}


def test_without_classes_or_confidence():
    regions = support.some_regions(count=3, cls_prob=None, objects=None, objects_conf=None)
    boxes = shown_boxes(regions, SIZE, NAMES, top=2)
    np.testing.assert_array_equal([b.stored for b in boxes], regions.bbox[:2])
    assert {(b.label, b.text, b.confidence, b.color) for b in boxes} == {(None, "", None, NEUTRAL)}
    regions = dataclasses.replace(regions, objects=np.array([1, 2, 3]))
    assert [b.text for b in shown_boxes(regions, SIZE, NAMES, top=2)] == ["b", "c"]


def test_clipped_at_the_edge():
    bbox = np.array([[-5, -6, 700, 500], [10, 20, 30, 40], [650, 430, 660, 440]], np.float32)
    boxes = shown_boxes(support.some_regions(count=3, bbox=bbox), SIZE, NAMES, top=9)
    found = {b.stored: b.clipped for b in boxes}
    assert found == {
        (-5, -6, 700, 500): (0, 0, 639, 426),
        (10, 20, 30, 40): (10, 20, 30, 40),
        (650, 430, 660, 440): (639, 426, 639, 426),
    }


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"bbox": None}, "no boxes"),
        ({"image_width": 641}, "of an image of 641 x 427 pixels, this one has 640 x 427"),
        ({"bbox": np.full((5, 4), np.nan, np.float32)}, "bbox"),
        ({"objects_conf": np.full(5, np.inf, np.float32)}, "objects_conf"),
        ({"cls_prob": np.full((5, 9), np.nan, np.float32)}, "cls_prob"),
    ],
)
def test_what_cant_be_right_is_an_error_of_the_image(changes, reason):
    with pytest.raises(StoreError, match=reason):
        shown_boxes(support.some_regions(**changes), SIZE, NAMES, top=9)


def test_no_regions_and_an_unknown_size():
    assert shown_boxes(support.some_regions(count=0), SIZE, NAMES, top=9) == []
    regions = support.some_regions(image_width=None, image_height=None)
    assert len(shown_boxes(regions, (999, 999), NAMES, top=9)) == 5


def test_names_that_dont_fit():
    regions = support.some_regions(classes=12)
    with pytest.raises(ConfigError, match="9 names, but there are 12 classes"):
        shown_boxes(regions, SIZE, NAMES, top=9)
    regions = RegionFeatures(regions.features, regions.bbox, 5, np.array([9] * 5), None, 640, 427)
    with pytest.raises(ConfigError, match="none for the class 9"):
        shown_boxes(regions, SIZE, NAMES, top=9)


# The drawing


@pytest.mark.parametrize(
    ("corners", "pixels"),
    [
        ((10, 20, 50, 45), (10, 20, 50, 45)),
        ((9.6, 20.4, 50.4, 44.6), (10, 20, 50, 45)),
        ((0, 0, 79, 59), (0, 0, 79, 59)),
        ((79, 59, 79, 59), (79, 59, 79, 59)),
        ((30, 30, 20, 20), (30, 30, 30, 30)),  # x2 before x1
    ],
)
def test_the_edges_have_the_color_and_nothing_lies_outside(corners, pixels):
    image = drawn(grey(60, 80), box(*corners))
    assert changed(image) == pixels
    x1, y1, x2, y2 = pixels
    columns, lines = slice(x1, x2 + 1), slice(y1, y2 + 1)
    edges = [image[y1, columns], image[y2, columns], image[lines, x1], image[lines, x2]]
    assert all((edge == RED).all() for edge in edges)
    if x2 - x1 > 30:
        assert (image[30:36, x1 + 10 : x2 - 10] == GREY).all()


def test_the_first_lies_on_top():
    first, second = box(10, 10, 40, 40, RED), box(25, 5, 60, 30, GREEN)
    assert tuple(drawn(grey(60, 80), first, second)[30, 40]) == RED
    assert tuple(drawn(grey(60, 80), second, first)[30, 40]) == GREEN


def test_a_label_lies_above_its_box_on_its_color():
    image = drawn(grey(200, 300), box(50, 100, 250, 180, RED, "cup", 0.93))
    x1, y1, x2, y2 = changed(image)
    assert (x1, x2, y2) == (50, 250, 180)
    assert 80 <= y1 < 90
    assert tuple(image[y1, 50]) == RED
    assert (image[y1:100, 50:120] == 0).all(axis=2).any()  # black text
    assert (image[y1:100, 150:] == GREY).all()


@pytest.mark.parametrize(("x", "y"), [(0, 0), (297, 197)])
def test_a_label_stays_whole_within_the_image(x, y):
    def text_pixels(x, y):  # the box is too small for a dark line of its own
        image = drawn(grey(200, 300), box(x, y, x + 2, y + 2, BLUE, "saucer", 0.5))
        return (image.max(axis=2) < 40).sum()

    assert text_pixels(100, 100) > 50
    assert text_pixels(x, y) > 0.9 * text_pixels(100, 100)


def test_labels_keep_clear_of_each_other():
    same = [box(50, 100, 250, 180, color, "cup", 0.9) for color in (RED, GREEN, BLUE)]
    image = drawn(grey(200, 300), *same)
    areas = [(image == color).all(axis=2).sum() for color in (RED, GREEN, BLUE)]
    alone = [(drawn(grey(200, 300), b) == b.color).all(axis=2).sum() for b in same]
    outline = 2 * 2 * (201 + 81)
    assert all(area > 0.8 * (whole - outline) for area, whole in zip(areas, alone, strict=True))


def test_a_label_longer_than_the_image_is_cut():
    long = drawn(grey(100, 120), box(20, 50, 100, 90, RED, "a very long name indeed " * 20, 0.5))
    assert changed(long)[2] <= 119
    assert (long[:50] == RED).all(axis=2).any()


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (200, 3)])
def test_images_too_small_for_a_label(size):
    height, width = size
    image = drawn(grey(*size), box(0, 0, width - 1, height - 1, RED, "cup", 0.5))
    assert (image == RED).all()


def test_any_text_is_drawn():
    for label in ("\u86cb\u9ec4", "\u202edrow", "a\0b", "\U0001f600", ""):
        drawn(grey(100, 200), box(20, 50, 100, 90, RED, label, 0.5))


def luminance(color):
    channels = [c / 255 for c in color]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_colors_are_legible_and_differ():
    colors = [color_of(number) for number in range(1600)]
    assert color_of(None) == NEUTRAL
    for color in (*colors, NEUTRAL):
        assert (luminance(color) + 0.05) / 0.05 >= 4.5  # WCAG AA for black text
    assert len(set(colors)) > 1000
    assert all(len(set(colors[i : i + 40])) == 40 for i in range(0, 1600, 40))
    # Fixed, since drawings of one store are compared over time.
    assert (colors[0], colors[17]) == ((247, 100, 100), (168, 247, 250))
