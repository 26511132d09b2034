"""The input of each lineage: sizes, and the pixels that are its own to decode."""

import cv2
import numpy as np
import pytest
from PIL import Image

from vmb_d2.config import named_model
from vmb_d2.config.input_step import InputStep
from vmb_d2.data import preprocessing
from vmb_d2.errors import ConfigError

VINVL, FRCNN_VG, BUA = (named_model(name).input for name in ("vinvl", "frcnn_vg", "bua"))


@pytest.mark.parametrize(
    ("step", "size", "expected"),
    [
        (VINVL, (400, 600), (600, 900)),
        (VINVL, (427, 60), (1003, 141)),  # the long side follows from the rounded short one
        (VINVL, (1, 64), (16, 1024)),
        (VINVL, (1080, 1920), (562, 999)),
        (FRCNN_VG, (400, 600), (800, 1200)),
        (FRCNN_VG, (427, 640), (800, 1199)),
        (FRCNN_VG, (300, 1000), (400, 1333)),
        (BUA, (427, 640), (600, 899)),
        (BUA, (1080, 1920), (562, 1000)),
    ],
)
def test_sizes(step, size, expected):
    assert step.network_size(*size) == expected
    assert step.network_size(*size[::-1]) == expected[::-1]
    image = preprocessing.preprocess(np.zeros((*size, 3), np.uint8), step)
    assert tuple(image.tensor.shape[1:]) == image.padded_size == expected
    if step.rounding == "one_scale":
        assert image.scales == (step.scale(*size),) * 2
    else:
        assert image.scales == (expected[1] / size[1], expected[0] / size[0])


@pytest.mark.parametrize(
    "changes",
    [
        {"resize": "cubic"},
        {"rounding": "up"},
        {"channel_order": "grey"},
        {"decoder": "gd"},
        {"short_side": 0},
        {"short_side": 900, "long_side": 800},
    ],
)
def test_values_out_of_range(changes):
    with pytest.raises(ConfigError, match=next(iter(changes))):
        InputStep(**changes)


def saved(path, image, **options):
    image.save(path, **options)
    return path


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_is_applied_as_by_opencv(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.random.default_rng(0).integers(0, 256, (30, 50, 3), dtype=np.uint8)
    path = saved(tmp_path / "a.jpg", Image.fromarray(pixels), exif=exif)
    read = preprocessing.read_image(path, "opencv")
    assert np.array_equal(read, cv2.imread(str(path))[:, :, ::-1])
    assert preprocessing.read_size(path, "opencv") == read.shape[:2]
    assert preprocessing.read_image(path).shape[:2] == preprocessing.read_size(path) == (30, 50)
    assert preprocessing.load(path, FRCNN_VG).conversions == ()
    with Image.open(path) as image:
        assert np.array_equal(
            preprocessing.load(image, FRCNN_VG).tensor, preprocessing.load(path, FRCNN_VG).tensor
        )


def test_16_bits_are_scaled_as_by_opencv(tmp_path):
    grey = np.arange(600, dtype=np.uint16).reshape(20, 30) * 100
    path = saved(tmp_path / "a.png", Image.fromarray(grey))
    expected = cv2.imread(str(path))
    assert expected.max() > 200 and expected.min() == 0
    assert np.array_equal(preprocessing.read_image(path, "opencv"), expected[:, :, ::-1])
    assert preprocessing.read_image(path).max() == 255
    assert preprocessing.load(path, BUA).conversions == ()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "1"])
def test_other_images_are_the_same_for_both(tmp_path, mode):
    pixels = np.random.default_rng(1).integers(0, 256, (20, 30, 4), dtype=np.uint8)
    path = saved(tmp_path / "a.png", Image.fromarray(pixels, "RGBA").convert(mode))
    expected = cv2.imread(str(path))[:, :, ::-1]
    assert np.array_equal(preprocessing.read_image(path, "opencv"), expected)
    assert np.array_equal(preprocessing.read_image(path), expected)
