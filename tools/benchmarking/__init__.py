"""How fast the extraction is, stage by stage, held against the original's loop."""

import vmb_d2.modeling  # noqa: F401  (prepares detectron2 for what is imported below)

# isort: split
from .chart import png_chart
from .end_to_end import Runs, start_up
from .measuring import PARTS, Plan, measure
from .random_weights import write_random_weights
from .report import json_text, table
from .stand_in import stand_in_extractor
from .workload import repeated, temporary_folder

__all__ = [
    "PARTS",
    "Plan",
    "Runs",
    "json_text",
    "measure",
    "png_chart",
    "repeated",
    "stand_in_extractor",
    "start_up",
    "table",
    "temporary_folder",
    "write_random_weights",
]
