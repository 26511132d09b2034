"""Stored regions drawn on their images: as PNGs, and as one HTML page. docs/visualizing.md."""

from .image_files import ImageFiles
from .page import Page, open_page
from .visualization import Counts, Visualization

__all__ = ["Counts", "ImageFiles", "Page", "Visualization", "open_page"]
