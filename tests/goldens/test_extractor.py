"""RegionFeatureExtractor as a notebook uses it."""

import numpy as np
import pytest
import support
import torch
from golden_checks import check
from PIL import Image

from reference import goldens
from vmb_d2.comparison.fidelity import distance, relative_errors
from vmb_d2.errors import ConfigError, ImageReadError
from vmb_d2.extractor import RegionFeatureExtractor
from vmb_d2.selection.options import RegionOptions

COFFEE = goldens.image_path("coffee.png")
TINY = support.TINY_FPN


@pytest.fixture(scope="module")
def extractor():
    return RegionFeatureExtractor(support.tiny_model(TINY))


@pytest.fixture(scope="module")
def coffee(extractor):
    """The regions of coffee.png."""
    return extractor.extract(COFFEE)


def golden(tag):
    ((path, _, _),) = goldens.find(rf"{TINY}\.seed0\.{tag}\.coffee")
    return np.load(path)


@pytest.mark.slow
def test_from_pretrained(tmp_path):
    extractor = RegionFeatureExtractor.from_pretrained(
        support.yaml_path(TINY),
        weights=support.vmb_checkpoint(TINY),
        device="cpu",
        cache_dir=tmp_path,
        num_features=36,
        feature_names=["fc7", "fc6"],
    )
    regions = extractor.extract(COFFEE)
    assert regions.features.shape == regions.further["fc6"].shape == (36, 128)
    result = distance(goldens.regions_of(golden("num36")), regions.with_feature("fc6"))
    assert (result.matched, result.same_class) == (36, 36)
    assert result.features < 2e-5
    # The conversion that it made says itself what it is of.
    (converted,) = (tmp_path / "converted").glob("*.pth")
    again = RegionFeatureExtractor.from_pretrained(None, weights=converted, device="cpu")
    assert again.description == support.description(TINY)
    support.assert_same_regions(
        RegionFeatureExtractor(extractor.model).extract(COFFEE), again.extract(COFFEE)
    )


@pytest.mark.parametrize(
    ("arguments", "options", "expected"),
    [
        (["x153"], {}, "x153.*x152, x101, r101_c4, x152_c4"),
        (["r101_c4"], {}, "weights is missing.*only x152, x101, frcnn_vg have"),
        ([None], {}, "weights is missing"),
        (["x152"], {"feature_names": ["fc8"]}, "this model has fc6, fc7"),
        (["x152"], {"device": "tpu"}, "device=tpu"),
        (["x152"], {"num_features": 0}, "num_features=0"),
        (["/no/such.yaml"], {}, "No such file"),
    ],
)
def test_mistakes_come_before_the_download(arguments, options, expected):
    with pytest.raises(ConfigError, match=expected):
        RegionFeatureExtractor.from_pretrained(*arguments, **options)


@pytest.mark.parametrize("kind", ["path", "text", "pil", "array", "palette"])
def test_kinds_of_images(extractor, coffee, kind):
    image = Image.open(COFFEE)
    source = {
        "path": COFFEE,
        "text": str(COFFEE),
        "pil": image,
        "array": np.array(image),
        "palette": image.convert("RGBA"),
    }[kind]
    support.assert_same_regions(extractor.extract(source), coffee)


@pytest.mark.parametrize(
    ("source", "error"),
    [
        (np.zeros((8, 8, 3)), ValueError),
        (np.zeros((8, 8), np.uint8), ValueError),
        (np.zeros((8, 8, 4), np.uint8), ValueError),
        ([3], TypeError),
        ("/no/such.png", ImageReadError),
        (np.zeros((1, 3000, 3), np.uint8), ImageReadError),
    ],
)
def test_what_is_no_image(extractor, source, error):
    with pytest.raises(error):
        extractor.extract(source)


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 2])
def test_a_list_gives_a_list_in_its_order(extractor, batch_size):
    names = ["coffee.png", "camera.png", "rocket.jpg", "coffee.png"]
    results = extractor.extract([goldens.image_path(name) for name in names], batch_size=batch_size)
    assert [(r.image_width, r.image_height) for r in results] == [
        Image.open(goldens.image_path(name)).size for name in names
    ]
    for name, regions in zip(names, results, strict=True):
        ((path, _, _),) = goldens.find(rf"{TINY}\.seed0\.bs1\.{name}")
        result = distance(goldens.load(path), regions)
        assert result.matched_share >= 0.999
        assert result.features < 2e-5
    assert extractor.extract([]) == []


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor, lambda boxes: boxes.tolist()])
def test_given_boxes(kind):
    ((path, _, image),) = goldens.find(rf"{TINY}\.seed0\.given_boxes\.")
    options = RegionOptions(["fc6", "fc7"])
    extractor = RegionFeatureExtractor(support.tiny_model(TINY), options)
    regions = extractor.extract(COFFEE, boxes=kind(np.load(path)["boxes"]))
    assert list(regions.further) == ["fc7"]
    check(path, regions, image)


@pytest.mark.slow
def test_given_boxes_of_several_images(extractor):
    """In one batch, one image without boxes among them."""
    box = [[10, 20, 100, 120]]
    first, none, last = extractor.extract([COFFEE] * 3, boxes=[box, [], box + box], batch_size=3)
    assert (len(first), len(none), len(last)) == (1, 0, 2)
    assert none.features.shape == (0, 128)
    assert none.bbox.shape == (0, 4)
    assert none.cls_prob.shape == (0, 100)
    assert none.class_logits.shape == (0, 101)
    alone = extractor.extract(COFFEE, boxes=box)
    assert relative_errors(alone.features, last.features[1:]).max() < 2e-5
    with pytest.raises(ValueError, match="boxes of 1 images for 2 images"):
        extractor.extract([COFFEE] * 2, boxes=[box])
    with pytest.raises(ValueError, match=r"\(n, 4\)"):
        extractor.extract(COFFEE, boxes=[[1, 2, 3]])


def test_adaptive_number_of_regions(coffee):
    model, whole = support.tiny_model(TINY), coffee
    confident = RegionOptions(min_features=0, max_features=90, confidence_threshold=0.6)
    few = RegionFeatureExtractor(model, confident).extract(COFFEE)
    assert 0 < len(few) < 90
    assert few.num_boxes == len(few)
    np.testing.assert_array_equal(few.bbox, whole.bbox[: len(few)])
    np.testing.assert_array_equal(few.features, whole.features[: len(few)])
    expected = golden("conf0.6")["num_boxes"]
    assert len(few) == expected
