"""How an image becomes the network's input."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import ConfigError

RESIZES = ("opencv", "pil", "torch")
ROUNDINGS = ("one_scale", "truncate", "half_up")
CHANNEL_ORDERS = ("bgr", "rgb")
DECODERS = ("pillow", "opencv")


@dataclass(frozen=True)
class InputStep:
    """How an image becomes the network's input. The defaults are MMF's.

    Attributes:
        short_side, long_side: in network pixels. The short side becomes ``short_side``, unless the
            long side would be larger than ``long_side``; then that becomes ``long_side``.
        rounding: of the sides. ``"one_scale"``: both to the nearest pixel; boxes go back to the
            image with the scale that was rounded, equal for x and y. ``"half_up"``: the same, but
            boxes go back with the ratio of each side. ``"truncate"``: the short side to the
            nearest, and the long side, which follows from it, down, so that it can be larger than
            ``long_side``; boxes go back with the ratio of each side.
        resize: bilinear. ``"opencv"``: of float32 pixels, after the mean was subtracted.
            ``"torch"``: of float32 pixels. ``"pil"``: of 8-bit pixels, averaging where it shrinks.
        mean: subtracted from the channels of 0..255, in ``channel_order``.
        channel_order: of the network's input.
        decoder: as whose the pixels are: ``"pillow"``'s, or ``"opencv"``'s, which applies EXIF's
            rotation and scales 16 bits to 8.
        size_divisibility: images are padded with zeros, right and below, to multiples of it.

    Raises:
        ConfigError: a value that is none of these.
    """

    short_side: int = 800
    long_side: int = 1333
    rounding: str = "one_scale"
    resize: str = "opencv"
    mean: tuple[float, ...] = (102.9801, 115.9465, 122.7717)
    channel_order: str = "bgr"
    decoder: str = "pillow"
    size_divisibility: int = 32

    def __post_init__(self) -> None:
        choices = {
            "rounding": ROUNDINGS,
            "resize": RESIZES,
            "channel_order": CHANNEL_ORDERS,
            "decoder": DECODERS,
        }
        for name, valid in choices.items():
            if getattr(self, name) not in valid:
                raise ConfigError(field=name, value=getattr(self, name), valid=valid)
        if not 1 <= self.short_side <= self.long_side:
            raise ConfigError(
                f"has to be at least 1, and at most `long_side`={self.long_side}",
                field="short_side",
                value=self.short_side,
            )

    def scale(self, height: int, width: int) -> float:
        """Network pixels per original pixel of an image of (height, width), before rounding."""
        short, long = sorted((height, width))
        scale = self.short_side / short
        if round(scale * long) > self.long_side:
            scale = self.long_side / long
        return scale

    def network_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) in network pixels of the image after resizing, before padding."""
        if self.rounding == "one_scale":
            scale = self.scale(height, width)
            return round(height * scale), round(width * scale)
        short, long = sorted((height, width))
        if self.rounding == "truncate":
            side = self.short_side
            if side * long / short > self.long_side:
                side = round(self.long_side * short / long)
            sides = side, int(side * long / short)
        else:
            exact = [float(self.short_side), self.short_side / short * long]
            if exact[1] > self.long_side:
                exact = [side * (self.long_side / exact[1]) for side in exact]
            sides = int(exact[0] + 0.5), int(exact[1] + 0.5)
        return sides if height <= width else (sides[1], sides[0])

    def scales(self, height: int, width: int) -> tuple[float, float]:
        """Network pixels per original pixel, of x and of y, by which boxes go back."""
        if self.rounding == "one_scale":
            scale = self.scale(height, width)
            return scale, scale
        rows, columns = self.network_size(height, width)
        return columns / width, rows / height

    @property
    def most_pixels(self) -> int:
        """No image has more network pixels, padding left aside."""
        return (self.short_side + 2) * (self.long_side + 2)

    def padded_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) in network pixels, rounded up to multiples of ``size_divisibility``."""
        if not self.size_divisibility:
            return height, width
        rows, columns = (-(-side // self.size_divisibility) for side in (height, width))
        return rows * self.size_divisibility, columns * self.size_divisibility


MMF_INPUT = InputStep()
