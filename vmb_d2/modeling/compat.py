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


def shim_extension(package: str = "detectron2") -> bool:
    """Put an empty module in the place of ``<package>._C`` if that is missing. True if it was.

    An extension that exists but fails to import is not replaced: its own error says more.
    """
    name = f"{package}._C"
    if name in sys.modules or importlib.util.find_spec(name) is not None:
        return False
    empty = types.ModuleType(name, "This detectron2 was installed without compiled operators.")
    sys.modules[name] = sys.modules[package].__dict__["_C"] = empty
    return True


def prepare_detectron2() -> None:
    """Apply the shims that this environment needs. Call before any ``import detectron2.*``.

    Raises ModuleNotFoundError with installation hints where detectron2 is missing.
    """
    if importlib.util.find_spec("detectron2") is None:
        raise ModuleNotFoundError(INSTALL_HINT, name="detectron2")
    import PIL.Image

    if not hasattr(PIL.Image, "LINEAR"):
        PIL.Image.LINEAR = PIL.Image.BILINEAR  # type: ignore[attr-defined]  # until Pillow 10
    shim_extension()
    # Detectron2 calls meshgrid without its `indexing` argument.
    warnings.filterwarnings("ignore", message=r"torch\.meshgrid: ", category=UserWarning)
