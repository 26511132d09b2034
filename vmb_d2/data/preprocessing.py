"""Reading and preprocessing of images, as in MMF's extraction."""

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
from PIL import Image

from ..config.vmb_model import PIXEL_MEAN_BGR, SIZE_DIVISIBILITY
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

ImageSource = str | Path | Image.Image | np.ndarray

SHORT_SIDE = 800
LONG_SIDE = 1333


@dataclass(frozen=True)
class NetworkImage:
    """The network's input of one image.

    Attributes:
        tensor: float32 Tensor[3, h, w], BGR, the mean subtracted, resized, not padded.
        scale: network pixels per original pixel.
        width, height: in original pixels.
        conversions: those of :data:`CONVERSIONS` that its pixels went through.
        warnings: Pillow's texts, such as of damaged EXIF.
    """

    tensor: Tensor
    scale: float
    width: int
    height: int
    conversions: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def padded_size(self) -> tuple[int, int]:
        """(height, width) in network pixels to which it is padded in a batch of its own."""
        return padded_size(*self.tensor.shape[-2:])


def read_size(path: str | Path) -> tuple[int, int]:
    """(height, width) in original pixels, from the file's header. Raises ImageReadError."""
    with _opened(path) as image:
        return image.height, image.width


def read_image(path: str | Path) -> np.ndarray:
    """Decode the first frame of an image file.

    As in the original, EXIF's rotation isn't applied, and any mode but RGB is converted by Pillow's
    ``convert("RGB")``, which drops alpha without blending and clips 16-bit greys at 255.

    Returns:
        uint8 (H, W, 3), RGB.

    Raises:
        ImageReadError: missing, unreadable, damaged, or no image.
    """
    return _decode(path)[0]


def _decode(path: str | Path) -> tuple[np.ndarray, tuple[str, ...], tuple[str, ...]]:
    """The pixels of an image file, and ``conversions`` and ``warnings`` of its NetworkImage."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with _opened(path) as image:
            rgb, conversions = to_rgb(image), tuple(_conversions(image))
    texts = (" ".join(str(warning.message).split()) for warning in caught)
    return rgb, conversions, tuple(dict.fromkeys(texts))


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
    with contextlib.suppress(Exception):  # damaged EXIF doesn't make an image unreadable
        if "exif" in image.info and image.getexif().get(_ORIENTATION) in range(2, 9):
            yield "rotation"  # not for a TIFF, which Pillow rotates


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


def resize_scale(height: int, width: int) -> float:
    """Network pixels per original pixel of an image of (height, width).

    The short side becomes 800, unless the long side, rounded, would be more than 1333; then that
    becomes 1333.
    """
    scale = SHORT_SIDE / min(height, width)
    if np.round(scale * max(height, width)) > LONG_SIDE:
        scale = LONG_SIDE / max(height, width)
    return scale


def network_size(height: int, width: int) -> tuple[int, int]:
    """(height, width) in network pixels of the image after resizing, before padding."""
    scale = resize_scale(height, width)
    return round(height * scale), round(width * scale)


def padded_size(height: int, width: int) -> tuple[int, int]:
    """(height, width) in network pixels, each rounded up to a multiple of 32."""
    return (
        -(-height // SIZE_DIVISIBILITY) * SIZE_DIVISIBILITY,
        -(-width // SIZE_DIVISIBILITY) * SIZE_DIVISIBILITY,
    )


def read_padded_size(path: str | Path) -> tuple[int, int]:
    """:func:`padded_size` of an image file, from its header. Raises ImageReadError."""
    return padded_size(*network_size(*read_size(path)))


def preprocess(rgb: np.ndarray) -> NetworkImage:
    """Subtract the mean, then resize.

    Args:
        rgb: uint8 (H, W, 3), RGB.

    Raises:
        ImageReadError: so narrow that its short side would be less than a pixel.
    """
    import torch

    height, width = rgb.shape[:2]
    scale = resize_scale(height, width)
    if min(network_size(height, width)) < 1:
        raise ImageReadError(f"{width} x {height} pixels: too narrow to be resized to {LONG_SIDE}")
    # As in the original, subtracted in float64 and stored in float32; without a float64 array of
    # the image, which can be large.
    bgr = np.empty(rgb.shape, dtype=np.float32)
    np.subtract(rgb[:, :, ::-1], np.array(PIXEL_MEAN_BGR), out=bgr, casting="unsafe")
    resized = cv2.resize(bgr, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
    tensor = torch.from_numpy(resized.transpose(2, 0, 1))
    return NetworkImage(tensor, scale, width, height)


def load(source: ImageSource) -> NetworkImage:
    """Read and preprocess an image.

    Args:
        source: a path, a PIL image, or a uint8 array (H, W, 3), RGB.

    Raises:
        ImageReadError: it can't be read or is too narrow.
        ValueError, TypeError: another kind of array or object.
    """
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.ndim != 3 or source.shape[2] != 3:
            raise ValueError(
                f"an array of {source.dtype} {source.shape}: images are uint8 (H, W, 3), RGB"
            )
        return preprocess(source)
    if isinstance(source, Image.Image):
        return preprocess(to_rgb(source))
    if not isinstance(source, (str, Path)):
        raise TypeError(f"{type(source).__name__}: images are paths, PIL images or uint8 arrays")
    rgb, conversions, texts = _decode(source)
    try:
        return replace(preprocess(rgb), conversions=conversions, warnings=texts)
    except ImageReadError as error:
        raise ImageReadError(f"{source}: {error}") from error
