"""Boxes clipped to the image, to its padding, or to that of a batch."""

import numpy as np
from comparison_stores import boxes, changed, every, images, names_of, relu_like, result
from support import some_regions


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


def test_an_image_that_needs_no_padding_is_not_clipped_to_the_image():
    own, batch = border([799] * 10, 800, 800), border(range(805, 905, 10), 800, 800)
    for found in (result(own, batch), result(batch, own)):
        assert names_of(found) == ["batch_clipping"]


def test_clipping_to_the_image():
    padded = border(np.linspace(644, 647, 10))
    image = every(padded, lambda r: clipped(r, 639, 426))
    for found in (result(padded, image), result(image, padded)):
        assert names_of(found) == ["image_clipping"]
    others = border(np.linspace(630, 633, 10))  # not clipped, but other boxes
    for found in (result(padded, others), result(others, padded)):
        assert names_of(found) == []


def test_other_weights_with_boxes_past_the_padding():
    def past(regions):
        bbox = regions.bbox.copy()
        if regions.image_width < 1000:
            bbox[::9] = [300, 5, regions.image_width + 15, 9]
        return changed(regions, bbox=bbox)

    assert names_of(result(images(), every(images(seed=1), past))) == ["weights"]
