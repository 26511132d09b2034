"""A bar chart of images a second, by model and precision, drawn with Pillow."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

_COLORS = {"fp32": "#4c72b0", "tf32": "#55a868", "bf16": "#dd8452", "fp16": "#8172b3"}
_ORIGINAL = "#999999"
_WIDTH, _LEFT, _RIGHT, _TOP = 900, 170, 90, 50
_BAR, _GAP = 16, 14  # heights in pixels


def write_chart(
    path: Path, title: str, rates: Mapping[str, Mapping[str, float]], unit: str = "images/s"
) -> None:
    """Write a PNG.

    Args:
        path: of the file.
        title: above the bars.
        rates: model -> precision, or ``"original"`` -> images a second.
        unit: beside each number.
    """
    bars = sum(map(len, rates.values()))
    height = _TOP + bars * _BAR + len(rates) * _GAP
    image = Image.new("RGB", (_WIDTH, height), "white")
    canvas, font = ImageDraw.Draw(image), ImageFont.load_default(13)
    canvas.text((10, 12), title, fill="black", font=ImageFont.load_default(16))
    most = max((rate for of_model in rates.values() for rate in of_model.values()), default=1.0)
    y = _TOP
    for model, of_model in rates.items():
        canvas.text((10, y), model, fill="black", font=font)
        for kind, rate in of_model.items():
            end = _LEFT + rate / most * (_WIDTH - _LEFT - _RIGHT)
            color = _COLORS.get(kind, _ORIGINAL)
            canvas.rectangle((_LEFT, y, max(end, _LEFT + 1), y + _BAR - 3), fill=color)
            canvas.text((_LEFT - 6, y), kind, fill="black", font=font, anchor="ra")
            canvas.text((end + 6, y), f"{rate:.3g} {unit}", fill="black", font=font)
            y += _BAR
        y += _GAP
    image.save(path)
