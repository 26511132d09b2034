"""Boxes clipped to the image, to its padding, or to that of a batch."""

import numpy as np
from comparison_stores import boxes, changed, every, images, names_of, result

A = images()


def clipped(regions, right, bottom):
    return boxes(regions, lambda b: np.minimum(b, [right, bottom, right, bottom]))


def at_the_border(regions):
    """Every fourth box far across the right border of an image of 640 x 427, scale 1.8735."""
    assert (regions.image_width, regions.image_height) == (640, 427)
    bbox = regions.bbox.copy()
    bbox[::4, 0] += 625 - bbox[::4, 0]
    bbox[::4, 2] = 625 + np.arange(0, 80, 8)
    return changed(regions, bbox=bbox)


BORDERED = every({name: A["image_0"] for name in "abc"}, at_the_border)
OWN_PADDING = (1216 - 1) / (800 / 427)


def test_clipping_to_the_padding_of_a_batch():
    own = every(BORDERED, lambda r: clipped(r, OWN_PADDING, 427))
    batch = every(BORDERED, lambda r: clipped(r, 660.0, 427))
    for found, letter in ((result(own, batch), "B"), (result(batch, own), "A")):
        assert names_of(found) == ["batch_clipping"]
        assert f"boxes of {letter}, in 3 images" in found["opinions"][0]["text"]
        assert found["unexplained"] == []
    assert names_of(result(batch, batch)) == []
    both = result(batch, every(BORDERED, lambda r: clipped(r, 690.0, 427)))
    assert "A and B was extracted" in both["opinions"][0]["text"]


def test_boxes_beyond_any_batch_are_no_clipping():
    far = every(BORDERED, lambda r: boxes(r, lambda b: np.where(b > 650, b + 200, b)))
    assert names_of(result(every(BORDERED, lambda r: clipped(r, 639, 427)), far)) == []


def test_clipping_to_the_image_itself():
    def within(regions):
        bbox = regions.bbox.copy()
        bbox[::4] = [400, 0, 644, 50]
        bbox[::4, 3] += np.arange(10) * 30
        return changed(regions, bbox=bbox)

    padded = every(BORDERED, within)
    image = every(padded, lambda r: clipped(r, 639, 426))
    for found in (result(padded, image), result(image, padded)):
        assert names_of(found) == ["image_clipping"]
