"""The formats in which features are stored. docs/formats.md has their schemas."""

from __future__ import annotations

from .base import FEATURE_DTYPES, FeatureReader, FeatureWriter
from .formats import FORMATS, Format, format_named
from .opening import find_stores, open_reader
from .union import UnionReader

__all__ = [
    "FEATURE_DTYPES",
    "FORMATS",
    "FeatureReader",
    "FeatureWriter",
    "Format",
    "UnionReader",
    "find_stores",
    "format_named",
    "open_reader",
]
