"""Boxes and labels drawn on an image, with Pillow."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .boxes import Color, ShownBox

Rectangle = tuple[int, int, int, int]  # x1, y1, x2, y2 in whole pixels

_BLACK = (0, 0, 0)


def draw_boxes(rgb: np.ndarray, boxes: Sequence[ShownBox]) -> Image.Image:
    """The image with the boxes on it, those that come first on top, and all labels on top of them.

    A box's outline lies on the inside of its edges, the outermost pixels in its colour, then a
    dark line. Lines and text grow with the image. A label lies within the image, where there is
    room not over another; one too long for the image is cut.

    Args:
        rgb: uint8 [H, W, 3].
        boxes: by falling confidence.

    Returns:
        RGB, of the same size.
    """
    image = Image.fromarray(rgb)
    canvas = ImageDraw.Draw(image)
    longest = max(image.size)
    width = max(2, round(longest / 300))
    for box in reversed(boxes):
        _draw_outline(canvas, _pixels(box), box.color, width)
    font = _font(max(12, round(longest / 48)))
    labels = _placed_labels(boxes, font, image.size)
    for box, text, place in reversed(labels):
        left, top, right, bottom = place
        canvas.rectangle((left, top, right - 1, bottom - 1), fill=box.color)
        middle = ((left + right) / 2, (top + bottom) / 2)
        canvas.text(middle, text, fill=_BLACK, font=font, anchor="mm")
    return image


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib, which comes with detectron2."""
    font = Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"
    return ImageFont.truetype(str(font), size)


def _pixels(box: ShownBox) -> Rectangle:
    """The box's first and last columns and rows."""
    x1, y1, x2, y2 = (round(value) for value in box.clipped)
    return x1, y1, max(x1, x2), max(y1, y2)


def _draw_outline(canvas: ImageDraw.ImageDraw, pixels: Rectangle, color: Color, width: int) -> None:
    x1, y1, x2, y2 = pixels
    shorter = min(x2 - x1, y2 - y1)
    halo = max(1, width // 3)
    if shorter < 2 * width:  # Pillow would draw the lines beyond the box
        canvas.rectangle(pixels, fill=color)
        return
    if shorter > 2 * (width + halo):
        inner = (x1 + width, y1 + width, x2 - width, y2 - width)
        canvas.rectangle(inner, outline=_BLACK, width=halo)
    canvas.rectangle(pixels, outline=color, width=width)


def _placed_labels(
    boxes: Sequence[ShownBox], font: ImageFont.FreeTypeFont, size: tuple[int, int]
) -> list[tuple[ShownBox, str, Rectangle]]:
    """Each box that has a label which fits into the image, with its text and place."""
    padding = max(1, round(font.size / 5))
    height = sum(font.getmetrics()) + padding
    placed: list[tuple[ShownBox, str, Rectangle]] = []
    for box in boxes:
        text = _shortened(box.text, font, size[0] - 2 * padding)
        if not text or height > size[1]:
            continue
        width = int(font.getlength(text)) + 2 * padding
        places = list(_places(_pixels(box), width, height, size))
        taken = [other for _, _, other in placed]
        free = (place for place in places if not any(_overlap(place, other) for other in taken))
        placed.append((box, text, next(free, places[0])))
    return placed


def _shortened(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """The text, cut so that it is at most ``width`` wide; empty where nothing fits."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text}…" if text else ""


def _places(
    pixels: Rectangle, width: int, height: int, size: tuple[int, int]
) -> Iterator[Rectangle]:
    """Where a label may go: above its box, inside it at the top, below, inside at the bottom.

    Unlike a box, a place ends before its x2 and y2.
    """
    x1, y1, x2, y2 = pixels
    for top in (y1 - height, y1, y2, y2 - height):
        for left in (x1, x2 - width):
            left = min(max(left, 0), size[0] - width)
            kept = min(max(top, 0), size[1] - height)
            yield left, kept, left + width, kept + height


def _overlap(a: Rectangle, b: Rectangle) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
