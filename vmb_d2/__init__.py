"""VMB-D2: the region features of vqa-maskrcnn-benchmark (VMB), on Detectron2.

The names below are loaded when they are first used, since torch and detectron2 take seconds.
``from vmb_d2 import get_cfg`` also prepares detectron2 and registers the components with it
(:mod:`vmb_d2.modeling`).
"""

import importlib

from .version import __version__

_HOMES = {
    "RegionFeatureExtractor": "vmb_d2.extractor",
    "get_cfg": "vmb_d2.modeling",
    "open_reader": "vmb_d2.output.open_stores",
}

__all__ = ["RegionFeatureExtractor", "__version__", "get_cfg", "open_reader"]


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
