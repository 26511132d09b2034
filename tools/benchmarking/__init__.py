"""How fast the extraction is, stage by stage, compared with the original's loop."""

import vmb_d2.modeling  # noqa: F401  (prepares detectron2 for what is imported below)
