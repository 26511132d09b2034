"""Opinions on what the original code gave, with other options and other networks."""

import itertools

import numpy as np
import pytest
from comparison_stores import boxes, every, features, kinds_of, names_of, result

from reference import goldens

MODEL = "tiny_x152_fpn"


def load(*tags, model=MODEL):
    """A store of goldens; a tag is ``bs1.coffee.png``."""
    folder = goldens.REFERENCE / "golden"
    return {tag.split(".")[-2]: goldens.load(folder / f"{model}.seed0.{tag}.npz") for tag in tags}


@pytest.fixture(scope="module")
def coffee():
    return load("bs1.coffee.png")


@pytest.mark.parametrize(
    ("option", "opinions", "kinds"),
    [
        ("fc7", {"layer"}, {"features"}),
        ("num36", {"num_features"}, {"boxes"}),
        ("background", {"background"}, {"classes"}),
        ("conf0.6", {"confidence_threshold"}, {"boxes"}),
        ("conf0.3", set(), set()),
        ("bs2", set(), set()),
    ],
)
def test_options(coffee, option, opinions, kinds):
    other = load(f"{option}.coffee.png")
    for found in (result(coffee, other), result(other, coffee)):
        assert set(names_of(found)) == opinions
        assert kinds_of(found) == kinds
        assert found["unexplained"] == []


@pytest.mark.parametrize("images", [("coffee.png", "horse.png"), ("horse.png",)])
def test_batches(images):
    own, batch = (load(*(f"{size}.{image}" for image in images)) for size in ("bs1", "bs2"))
    for found, letter in ((result(own, batch), "B"), (result(batch, own), "A")):
        assert names_of(found) == ["batch_clipping"]
        assert f"boxes of {letter} beyond" in found["opinions"][0]["text"]
        assert "boxes" in kinds_of(found)
        assert found["feature_error"]["worst_image"] == "horse"
        assert found["unexplained"] == []


def test_clipping_to_the_image_itself():
    """As other detectors do, inclusive or not; horse has boxes that end in its padding."""
    own = load("bs1.coffee.png", "bs1.horse.png")
    for one in (0, 1):

        def clip(regions, one=one):
            size = np.array([regions.image_width, regions.image_height] * 2) - 1 + one
            return boxes(regions, lambda b: np.minimum(b, size))

        for found in (result(own, every(own, clip)), result(every(own, clip), own)):
            assert names_of(found) == ["image_clipping"]


@pytest.mark.parametrize(
    ("a", "b"), itertools.combinations(("x101", "x152", "r101_c4", "x152_c4"), 2)
)
def test_other_models(a, b):
    found = result(load("bs1.coffee.png", model=a), load("bs1.coffee.png", model=b))
    assert names_of(found) == ["weights"]
    assert found["unexplained"] == []


def test_float16(coffee):
    half = every(coffee, lambda r: features(r, lambda f: f.astype(np.float16)))
    found = result(coffee, half)
    assert names_of(found) == ["rounding"]
    assert found["same"]


def test_network_pixels_of_fewer_regions_of_another_layer():
    def scaled(regions):
        return boxes(regions, lambda b: b * 2)  # 800 / 400

    found = result(every(load("num36.coffee.png"), scaled), load("fc7.coffee.png"))
    assert set(names_of(found)) == {"box_convention", "num_features", "layer"}
    assert found["opinions"][0]["text"].startswith("A's boxes are in network pixels")
