"""Reading and preprocessing of images, as in the originals' extraction."""

from __future__ import annotations

import contextlib
import os
import stat
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from PIL import Image, ImageOps

from ..config.input_step import MMF_INPUT, InputStep
from ..errors import ImageReadError

if TYPE_CHECKING:  # a run with nothing to do doesn't import torch
    from torch import Tensor

# Kinds of images that the conversion to 8-bit RGB changes, and how.
CONVERSIONS = {
    "16-bit": "with 16 bits a channel or more (clipped at 255, not scaled)",
    "float": "of floating-point numbers (clipped to 0..255, not scaled)",
    "alpha": "with alpha (dropped, not blended)",
    "rotation": "with an EXIF rotation (not applied)",
    "CMYK": "CMYK (converted without a colour profile)",
}
_ORIENTATION = 0x0112  # EXIF's tag
_ON_ITS_SIDE = range(5, 9)  # its values for images whose width and height are exchanged

ImageSource = str | Path | Image.Image | np.ndarray


@dataclass(frozen=True)
class NetworkImage:
    """The network's input of one image.

    Attributes:
        tensor: float32 Tensor[3, h, w], the mean subtracted, resized, not padded.
        scales: network pixels per original pixel, of x and y.
        width, height: in original pixels.
        padded_size: (height, width) in network pixels to which it is padded in a batch of its own.
        conversions: those of :data:`CONVERSIONS` that its pixels went through.
        warnings: Pillow's texts, such as of damaged EXIF.
    """

    tensor: Tensor
    scales: tuple[float, float]
    width: int
    height: int
    padded_size: tuple[int, int]
    conversions: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def read_size(path: str | Path, decoder: str = "pillow") -> tuple[int, int]:
    """(height, width) in original pixels, from the file's header. Raises ImageReadError.

    ``decoder``: see :class:`vmb_d2.config.input_step.InputStep`.
    """
    with _opened(path) as image:
        is_turned = image.format != "TIFF" and _orientation(image) in _ON_ITS_SIDE
        if is_turned and decoder == "opencv":
            return image.width, image.height
        return image.height, image.width


def read_image(path: str | Path, decoder: str = "pillow") -> np.ndarray:
    """Decode the first frame of an image file.

    By Pillow, EXIF's rotation isn't applied, and any mode but RGB is converted by
    ``convert("RGB")``, which drops alpha without blending and clips 16-bit greys at 255. OpenCV
    applies EXIF's rotation and scales 16 bits to 8; what it can't read is read by Pillow, with the
    rotation.

    Args:
        path: of the file.
        decoder: ``"pillow"`` or ``"opencv"``.

    Returns:
        uint8 (H, W, 3), RGB.

    Raises:
        ImageReadError: missing, unreadable, damaged, or no image.
    """
    return _decode(path, decoder)[0]


def _decode(path: str | Path, decoder: str) -> tuple[np.ndarray, tuple[str, ...], tuple[str, ...]]:
    """The pixels of an image file, and ``conversions`` and ``warnings`` of its NetworkImage."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with _opened(path) as image:
            rgb, conversions = to_rgb(image), tuple(_conversions(image))
            if decoder == "opencv" and set(conversions) - {"alpha"}:  # the others are the same
                rgb, conversions = _read_as_opencv(path, image, conversions)
    texts = (" ".join(str(warning.message).split()) for warning in caught)
    return rgb, conversions, tuple(dict.fromkeys(texts))


def _read_as_opencv(
    path: str | Path, image: Image.Image, conversions: tuple[str, ...]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """The pixels of an image file as OpenCV reads them, and what they went through."""
    decoded = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if decoded is None:
        kinds = tuple(kind for kind in conversions if kind != "rotation")
        return to_rgb(ImageOps.exif_transpose(image)), kinds
    return decoded[:, :, ::-1], tuple(kind for kind in conversions if kind == "alpha")


def _conversions(image: Image.Image) -> Iterator[str]:
    """Those of a decoded image; before it is decoded, its EXIF may be incomplete."""
    if image.mode.startswith("I"):
        yield "16-bit"
    elif image.mode == "F":
        yield "float"
    elif image.mode == "CMYK":
        yield "CMYK"
    if image.mode in ("LA", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        yield "alpha"
    if _orientation(image) in range(2, 9):
        yield "rotation"  # not for a TIFF, which Pillow rotates


def _orientation(image: Image.Image) -> int | None:
    """EXIF's orientation, 1 to 8; None where there is none."""
    with contextlib.suppress(Exception):  # damaged EXIF doesn't make an image unreadable
        if "exif" in image.info:
            return image.getexif().get(_ORIENTATION)
    return None


def to_rgb(image: Image.Image) -> np.ndarray:
    """The pixels of a PIL image, as :func:`read_image` returns them."""
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


@contextlib.contextmanager
def _opened(path: str | Path) -> Iterator[Image.Image]:
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            os.scandir(path).close()  # raises, if it was listed as one that can't be read
        if not stat.S_ISREG(mode):  # opening a pipe would block
            raise ValueError("is no file")
        with Image.open(path) as image:
            yield image
    except Exception as error:  # Pillow's decoders raise many kinds
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        reason = reason.replace(f" {str(path)!r}", "")  # in Pillow's own messages
        raise ImageReadError(f"{path}: {' '.join(reason.split())}") from error


def read_padded_size(path: str | Path, step: InputStep = MMF_INPUT) -> tuple[int, int]:
    """:attr:`NetworkImage.padded_size` of an image file, from its header. Raises ImageReadError."""
    return step.padded_size(*step.network_size(*read_size(path, step.decoder)))


def preprocess(rgb: np.ndarray, step: InputStep = MMF_INPUT) -> NetworkImage:
    """Resize and subtract the mean.

    Args:
        rgb: uint8 (H, W, 3), RGB.
        step: how.

    Raises:
        ImageReadError: so narrow that its short side would be less than a pixel.
    """
    import torch

    height, width = rgb.shape[:2]
    size = step.network_size(height, width)
    if min(size) < 1:
        long = step.long_side
        raise ImageReadError(f"{width} x {height} pixels: too narrow to be resized to {long}")
    if step.resize == "opencv":
        tensor = torch.from_numpy(_resized_by_opencv(rgb, step).transpose(2, 0, 1))
    else:
        tensor = _resized_by_pillow(rgb, size) if step.resize == "pil" else _resized(rgb, size)
        if step.channel_order == "bgr":
            tensor = tensor.flip(0)
        tensor = tensor - torch.tensor(step.mean)[:, None, None]
    scales = step.scales(height, width)
    return NetworkImage(tensor, scales, width, height, step.padded_size(*size))


def _resized_by_opencv(rgb: np.ndarray, step: InputStep) -> np.ndarray:
    """float32 (h, w, 3), the mean subtracted."""
    # As in the original, subtracted in float64 and stored in float32; without a float64 array of
    # the image, which can be large.
    ordered = rgb[:, :, ::-1] if step.channel_order == "bgr" else rgb
    values = np.empty(rgb.shape, dtype=np.float32)
    np.subtract(ordered, np.array(step.mean), out=values, casting="unsafe")
    scale = step.scale(*rgb.shape[:2])
    if step.rounding == "one_scale":
        return cv2.resize(values, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
    rows, columns = step.network_size(*rgb.shape[:2])
    return cv2.resize(values, (columns, rows), interpolation=cv2.INTER_LINEAR)


def _resized_by_pillow(rgb: np.ndarray, size: tuple[int, int]) -> Tensor:
    """float32 Tensor[3, *size] of whole numbers, RGB."""
    import torch

    resized = Image.fromarray(rgb).resize(size[::-1], Image.Resampling.BILINEAR)
    return torch.from_numpy(np.asarray(resized, dtype=np.float32).transpose(2, 0, 1).copy())


def _resized(rgb: np.ndarray, size: tuple[int, int]) -> Tensor:
    """float32 Tensor[3, *size], RGB."""
    import torch

    tensor = torch.from_numpy(rgb.astype(np.float32).transpose(2, 0, 1).copy())[None]
    return torch.nn.functional.interpolate(tensor, size=size, mode="bilinear")[0]


def load(source: ImageSource, step: InputStep = MMF_INPUT) -> NetworkImage:
    """Read and preprocess an image.

    Args:
        source: a path, a PIL image, or a uint8 array (H, W, 3), RGB.
        step: how.

    Raises:
        ImageReadError: it can't be read or is too narrow.
        ValueError, TypeError: another kind of array or object.
    """
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.ndim != 3 or source.shape[2] != 3:
            raise ValueError(
                f"an array of {source.dtype} {source.shape}: images are uint8 (H, W, 3), RGB"
            )
        return preprocess(source, step)
    if isinstance(source, Image.Image):
        if step.decoder == "opencv":
            source = ImageOps.exif_transpose(source)
        return preprocess(to_rgb(source), step)
    if not isinstance(source, (str, Path)):
        raise TypeError(f"{type(source).__name__}: images are paths, PIL images or uint8 arrays")
    rgb, conversions, texts = _decode(source, step.decoder)
    try:
        return replace(preprocess(rgb, step), conversions=conversions, warnings=texts)
    except ImageReadError as error:
        raise ImageReadError(f"{source}: {error}") from error
