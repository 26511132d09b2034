"""Comparing two stores of features, and naming the probable causes of their differences."""

from .compare import Comparison, Settings, compare
from .report import as_dict, json_text, table

__all__ = ["Comparison", "Settings", "as_dict", "compare", "json_text", "table"]
