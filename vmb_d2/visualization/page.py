"""One HTML page with images, their boxes and class probabilities, for any browser, offline."""

from __future__ import annotations

import base64
import contextlib
import html
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from PIL import Image

from ..errors import OutputError
from ..stores.base import output_errors
from ..structures import box_geometry
from ..utils.files import whole_file
from .boxes import ShownBox

LONGEST_SIDE = 1000  # pixels
JPEG_QUALITY = 85
MARK = "VMB-D2 visualize"  # near the beginning of each file, PNGs too
_PARTS = Path(__file__).parent
_BEGINNING = 1000  # bytes


class Page:
    """A page that images are added to, one after the other; :func:`open_page` makes it."""

    def __init__(self, file: TextIO):
        self._file = file

    def add(self, name: str, rgb: np.ndarray, boxes: Sequence[ShownBox], stored: int) -> None:
        """Add an image. Raises OSError.

        Args:
            name: text.
            rgb: uint8 [H, W, 3].
            boxes: by falling confidence.
            stored: how many boxes the store has, with those that aren't among ``boxes``.
        """
        height, width = rgb.shape[:2]
        clipped = torch.tensor([box.clipped for box in boxes], dtype=torch.float64)
        edges = box_geometry.to_exclusive(clipped.reshape(-1, 4)).tolist()
        shown = [_shown(box, *place) for box, place in zip(boxes, edges, strict=True)]
        content = {
            "name": _text(name),
            "width": width,
            "height": height,
            "stored": stored,
            "boxes": shown,
        }
        _write_json(self._file, "image", content)
        self._file.write(f'<script type="text/plain" class="jpeg">{_jpeg(rgb)}</script>\n')


@contextlib.contextmanager
def open_page(path: str | Path, title: str, min_confidence: float) -> Iterator[Page]:
    """A :class:`Page` that becomes the file ``path`` when the block ends well.

    Args:
        path: of the file.
        title: text.
        min_confidence: where the slider stands at first.

    Raises OutputError where the file can't be written, or one that isn't such a page is there.
    """
    refuse_other(path)
    page = _part("page.html")
    page = page.replace("<!-- style -->", _part("page.css"))
    page = page.replace("<!-- script -->", _part("page.js"))
    page = page.replace("<!-- title -->", html.escape(_text(title)))
    head, tail = page.split("<!-- images -->")
    with (
        output_errors(path, "can't be written"),
        whole_file(path) as temporary,
        open(temporary, "w", encoding="ascii", errors="xmlcharrefreplace") as file,
    ):
        file.write(head)
        _write_json(file, "settings", {"min_confidence": min_confidence})
        yield Page(file)
        file.write(tail)


def refuse_other(path: str | Path) -> None:
    """Raise OutputError where ``path`` is a file without the mark, such as a photograph."""
    with (
        output_errors(path, "can't be written"),
        contextlib.suppress(FileNotFoundError),
        open(path, "rb") as file,
    ):
        if MARK.encode() not in file.read(_BEGINNING):
            raise OutputError(f"{path} would be overwritten: choose another `output`")


def _write_json(file: TextIO, kind: str, value: Any) -> None:
    # ASCII, so that no U+2028 is in it; without "<", so that nothing ends the element.
    text = json.dumps(value, allow_nan=False).replace("<", "\\u003c")
    file.write(f'<script type="application/json" class="{kind}">{text}</script>\n')


def _part(name: str) -> str:
    return (_PARTS / name).read_text(encoding="ascii")


def _text(name: str) -> str:
    """The name of a file, which need not be text, as text."""
    return name.encode(errors="backslashreplace").decode()


def _shown(box: ShownBox, left: float, top: float, right: float, bottom: float) -> dict[str, Any]:
    """A box as the page's script reads it: its place as left, top, width, height in pixels."""
    return {
        "place": [round(value, 2) for value in (left, top, right - left, bottom - top)],
        "stored": [round(value, 1) for value in box.stored],
        "label": box.label,
        "text": box.text,
        "confidence": box.confidence,
        "likeliest": box.likeliest,
        "color": "#{:02x}{:02x}{:02x}".format(*box.color),
    }


def _jpeg(rgb: np.ndarray) -> str:
    """The image, made smaller if it is large, as JPEG in base64."""
    image = Image.fromarray(rgb)
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    content = io.BytesIO()
    image.save(content, "JPEG", quality=JPEG_QUALITY)
    return base64.b64encode(content.getvalue()).decode()
