"""The colour of a class: the same in every image, store and run."""

from __future__ import annotations

import colorsys

Color = tuple[int, int, int]  # red, green, blue, 0 to 255

NEUTRAL: Color = (225, 225, 225)
TEXT: Color = (0, 0, 0)  # legible on all colours below

_GOLDEN_RATIO = 0.6180339887
_LIGHTNESS = (0.68, 0.75, 0.82)
_SATURATION = 0.9


def color_of(number: int | None) -> Color:
    """A bright colour for a class; ``NEUTRAL`` for None, which is the background or no class.

    Neighbouring numbers get hues far apart.
    """
    if number is None:
        return NEUTRAL
    hue = number * _GOLDEN_RATIO % 1
    channels = colorsys.hls_to_rgb(hue, _LIGHTNESS[number % len(_LIGHTNESS)], _SATURATION)
    return tuple(round(255 * channel) for channel in channels)
