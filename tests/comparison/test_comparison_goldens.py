"""Opinions on what the original code gave, with other options and other networks."""

import pytest
from comparison_stores import boxes, every, kinds_of, names_of, result

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


@pytest.mark.parametrize(("a", "b"), [("x101", "x152"), ("x152", "r101_c4")])
def test_other_models(a, b):
    found = result(load("bs1.coffee.png", model=a), load("bs1.coffee.png", model=b))
    assert names_of(found) == ["weights"]
    assert found["unexplained"] == []


def test_network_pixels_of_fewer_regions_of_another_layer():
    def scaled(regions):
        return boxes(regions, lambda b: b * 2)  # 800 / 400

    found = result(every(load("num36.coffee.png"), scaled), load("fc7.coffee.png"))
    assert set(names_of(found)) == {"box_convention", "num_features", "layer"}
    assert "A's boxes are x1, y1, x2, y2 in network pixels" in found["opinions"][0]["text"]
