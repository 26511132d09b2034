"""Reading and preprocessing against what the original's few lines do."""

import io
import random

import cv2
import numpy as np
import pytest
from fakes import images_with_warnings
from PIL import Image

from reference import goldens
from vmb_d2.config.input_step import MMF_INPUT
from vmb_d2.data import preprocessing as images
from vmb_d2.errors import ImageReadError

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (13, 17), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (13, 17, 3), dtype=np.uint8)
ALPHA = RNG.integers(0, 256, (13, 17), dtype=np.uint8)


def saved(folder, image, name="image.png", **options):
    path = folder / name
    image.save(path, **options)
    return path


def palette():
    image = Image.new("P", (17, 13))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putdata([i % 2 for i in range(17 * 13)])
    return image


DARK = RNG.integers(0, 700, (13, 17), dtype=np.uint16)


@pytest.mark.parametrize(
    ("image", "options", "expected"),
    [
        (COLOUR, {}, COLOUR),
        (GREY, {}, GREY),
        (np.dstack([COLOUR, ALPHA]), {}, COLOUR),  # dropped, not blended
        (np.dstack([GREY, ALPHA]), {}, GREY),
        (GREY > 128, {}, np.where(GREY > 128, 255, 0)),
        (DARK, {}, np.minimum(DARK, 255)),
        (palette(), {"transparency": 0}, np.array(palette().convert("RGB"))),
    ],
)
def test_modes(tmp_path, image, options, expected):
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    found = images.read_image(saved(tmp_path, image, **options))
    assert found.dtype == np.uint8
    if expected.ndim == 2:
        expected = np.repeat(expected[:, :, None], 3, axis=2)
    assert np.array_equal(found, expected)


def test_damaged_files(tmp_path):
    whole = saved(tmp_path, Image.fromarray(COLOUR)).read_bytes()
    jpeg = goldens.image_path("rocket.jpg").read_bytes()
    cases = {
        "truncated.png": whole[: len(whole) // 2],
        "truncated.jpg": jpeg[:4000],
        "empty.png": b"",
        "text.jpg": b"not an image",
        "no pixels.ppm": b"P6\n0 5\n255\n",
        "header.png": whole[:8],
        "flipped.png": whole[:60] + bytes(255 - b for b in whole[60:100]) + whole[100:],
    }
    for name, content in cases.items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(ImageReadError) as caught:
            images.read_image(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert str(caught.value).count(str(path)) == 1
        assert "\n" not in str(caught.value)


def test_randomly_damaged_files_are_read_or_refused(tmp_path):
    """Decoders raise all kinds of errors; none but ours may come out."""
    rng = random.Random(0)
    wholes = []
    for mode, kind in (("RGB", "PNG"), ("P", "PNG"), ("RGB", "JPEG"), ("CMYK", "JPEG")):
        file = io.BytesIO()
        Image.fromarray(COLOUR).convert(mode).save(file, kind)
        wholes.append(file.getvalue())
    path = tmp_path / "image.png"
    refused = 0
    for _ in range(400):
        content = bytearray(rng.choice(wholes))
        for _ in range(rng.randrange(1, 8)):
            content[rng.randrange(len(content))] = rng.randrange(256)
        path.write_bytes(content[: rng.randrange(len(content) // 2, len(content) + 1)])
        try:
            images.read_padded_size(path)
            images.read_image(path)
        except ImageReadError:
            refused += 1
    assert 100 < refused < 400


def test_missing_file_and_folder(tmp_path):
    for path in (tmp_path / "none.png", tmp_path):
        for read in (images.read_image, images.read_size):
            with pytest.raises(ImageReadError, match=str(path)):
                read(path)


def test_padded_size():
    assert MMF_INPUT.padded_size(800, 1199) == (800, 1216)
    assert MMF_INPUT.padded_size(801, 1216) == (832, 1216)
    assert MMF_INPUT.padded_size(1, 1) == (32, 32)


@pytest.mark.parametrize(
    "size", [(97, 131), (131, 97), (333, 40), (800, 800), (480, 800), (480, 801)]
)
def test_preprocessing(size):
    rgb = RNG.integers(0, 256, (*size, 3), dtype=np.uint8)
    image = images.preprocess(rgb)
    # What the original does, line by line.
    array = rgb.astype(np.float32)[:, :, ::-1]
    array -= np.array([102.9801, 115.9465, 122.7717])
    scale = 800 / min(size)
    if np.round(scale * max(size)) > 1333:
        scale = 1333 / max(size)
    expected = cv2.resize(array, None, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
    assert np.array_equal(image.tensor.numpy(), expected.transpose(2, 0, 1))
    assert tuple(image.tensor.shape[1:]) == MMF_INPUT.network_size(*size)
    assert (image.height, image.width) == size
    assert image.scales == (scale, scale)


def test_size_from_the_header_is_the_size_after_resizing():
    for height in range(1, 60):
        for width in (7, 50, 333, 999):
            if min(MMF_INPUT.network_size(height, width)) < 1:
                continue
            image = images.preprocess(np.zeros((height, width, 3), dtype=np.uint8))
            assert tuple(image.tensor.shape[1:]) == MMF_INPUT.network_size(height, width)


def test_a_line_is_too_narrow(tmp_path):
    path = saved(tmp_path, Image.new("RGB", (5000, 1)))
    with pytest.raises(ImageReadError, match="5000 x 1 pixels: too narrow"):
        images.load(path)


def turned(value=6):
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


PLAIN = Image.fromarray(COLOUR)


@pytest.mark.parametrize(
    ("image", "name", "options", "expected"),
    [
        (PLAIN, "a.png", {}, []),
        (PLAIN, "a.jpg", {"exif": turned(99)}, []),
        (PLAIN, "a.jpg", {"exif": b"Exif\0\0no EXIF at all"}, []),
        (PLAIN, "a.jpg", {"exif": turned()}, ["rotation"]),
        (PLAIN, "a.webp", {"exif": turned(8)}, ["rotation"]),
        (PLAIN.convert("CMYK"), "a.jpg", {"exif": turned()}, ["CMYK", "rotation"]),
        (PLAIN.convert("RGBA"), "a.png", {}, ["alpha"]),
        (PLAIN.convert("RGBA"), "a.webp", {"lossless": True, "exact": True}, []),  # all opaque
        (PLAIN.convert("LA"), "a.png", {"exif": turned()}, ["alpha", "rotation"]),
        (PLAIN.convert("P"), "a.png", {"transparency": 3}, ["alpha"]),
        (PLAIN, "a.png", {"transparency": (1, 2, 3)}, ["alpha"]),
        (Image.fromarray(GREY.astype(np.uint16)), "a.png", {}, ["16-bit"]),
        (Image.fromarray(GREY.astype(np.int32)), "a.tif", {}, ["16-bit"]),
        (Image.fromarray(GREY.astype(np.float32)), "a.tif", {}, ["float"]),
    ],
)
def test_what_the_conversion_did_is_told(tmp_path, image, name, options, expected):
    path = saved(tmp_path, image, name, **options)
    assert list(images.load(path).conversions) == expected
    with Image.open(path) as opened:
        pixels = np.array(opened.convert("RGB"))
    assert np.array_equal(images.read_image(path), pixels)


def test_exif_turns_nothing_but_a_tiff(tmp_path):
    """A TIFF is turned by Pillow itself, as in the original; so nothing is left to tell."""
    for name in ("a.jpg", "a.png", "a.webp"):
        assert images.read_image(saved(tmp_path, PLAIN, name, exif=turned())).shape == (13, 17, 3)
    path = saved(tmp_path, PLAIN, "a.tif", exif=turned())
    assert images.read_image(path).shape == (17, 13, 3)
    assert images.read_size(path) == (17, 13)
    assert images.load(path).conversions == ()


def test_sixteen_bits_of_colour_are_their_high_bytes(tmp_path):
    values = RNG.integers(0, 65536, (13, 17, 3), dtype=np.uint16)
    cv2.imwrite(str(tmp_path / "a.png"), values)
    read = images.read_image(tmp_path / "a.png")
    assert np.array_equal(read[:, :, ::-1], values >> 8)
    assert images.load(tmp_path / "a.png").conversions == ()


def test_warnings_of_pillow_are_kept_with_the_image(tmp_path, recwarn):
    for path, text in images_with_warnings(tmp_path).items():
        (found,) = images.load(path).warnings
        assert found.startswith(text)
        assert "\n" not in found
    assert not recwarn
