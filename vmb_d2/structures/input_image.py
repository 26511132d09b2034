"""An image that is to be read."""

from __future__ import annotations

from typing import NamedTuple


class InputImage(NamedTuple):
    """An image file and the name under which its features are stored."""

    path: str
    name: str
