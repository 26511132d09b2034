"""The formats in which features are stored. docs/formats.md has their schemas."""

from __future__ import annotations

from .base import FEATURE_DTYPES, FeatureReader, FeatureWriter
from .formats import FORMATS, Format, format_named

__all__ = [
    "FEATURE_DTYPES",
    "FORMATS",
    "FeatureReader",
    "FeatureWriter",
    "Format",
    "format_named",
]
