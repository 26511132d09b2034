"""Stored regions drawn on their images: as PNGs, and as one HTML page. docs/visualizing.md."""

from __future__ import annotations

from ..structures.class_names import CLASSES_URL, ClassNames
from .class_names import load_class_names
from .image_files import ImageFiles
from .page import Page, open_page
from .run import Report, Visualization

__all__ = [
    "CLASSES_URL",
    "ClassNames",
    "ImageFiles",
    "Page",
    "Report",
    "Visualization",
    "load_class_names",
    "open_page",
]
