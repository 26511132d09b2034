"""Comparing two stores of features, and opinions on what makes them different."""

from .compare import Comparison, Settings, compare
from .diagnosis import Opinion, unexplained
from .opinions import opinions
from .report import as_dict, json_text, table
from .verdict import Reason, reasons

__all__ = [
    "Comparison",
    "Opinion",
    "Reason",
    "Settings",
    "as_dict",
    "compare",
    "json_text",
    "opinions",
    "reasons",
    "table",
    "unexplained",
]
