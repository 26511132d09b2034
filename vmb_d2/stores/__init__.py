"""The formats in which features are stored. docs/formats.md has their schemas."""

from __future__ import annotations

from .base import FEATURE_DTYPES, FeatureReader, FeatureWriter
from .formats import FORMATS, Format, find_stores, format_named, open_reader

__all__ = [
    "FEATURE_DTYPES",
    "FORMATS",
    "FeatureReader",
    "FeatureWriter",
    "Format",
    "find_stores",
    "format_named",
    "open_reader",
]
