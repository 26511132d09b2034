"""Shims that detectron2 needs before its first import in a current Python environment.

Detectron2 0.6 was released for Pillow < 10 and with a compiled extension. Box models need neither:
torchvision has ROIAlign and NMS. Each shim acts only where something is missing, so that a
detectron2 built from its repository is not changed.
"""

from __future__ import annotations

import importlib.util
import sys
import types
import warnings

INSTALL_HINT = (
    "detectron2 is not installed, and VMB-D2 is built on it. Run `make install` in the VMB-D2 "
    "checkout (no compiler needed), or install detectron2 from its repository: "
    "https://github.com/facebookresearch/detectron2"
)


def prepare_detectron2() -> None:
    """Apply the shims that this environment needs. Call before any ``import detectron2.*``.

    An extension that exists but fails to import is not replaced: its own error says more. Raises
    ModuleNotFoundError with installation hints where detectron2 is missing.
    """
    if importlib.util.find_spec("detectron2") is None:
        raise ModuleNotFoundError(INSTALL_HINT, name="detectron2")
    import PIL.Image

    if not hasattr(PIL.Image, "LINEAR"):
        PIL.Image.LINEAR = PIL.Image.BILINEAR  # type: ignore[attr-defined]  # until Pillow 10
    name = "detectron2._C"
    if name not in sys.modules and importlib.util.find_spec(name) is None:
        empty = types.ModuleType(name, "This detectron2 was installed without compiled operators.")
        sys.modules[name] = sys.modules["detectron2"].__dict__["_C"] = empty
    # Detectron2 calls meshgrid without its `indexing` argument.
    warnings.filterwarnings("ignore", message=r"torch\.meshgrid: ", category=UserWarning)
