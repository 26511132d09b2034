"""Comparing two stores of features, and opinions on what makes them different."""

from .compare import Comparison, Settings, compare
from .report import as_dict, json_text, table

__all__ = ["Comparison", "Settings", "as_dict", "compare", "json_text", "table"]
