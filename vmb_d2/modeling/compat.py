"""What detectron2 needs before its first import, on a current Python stack.

Detectron2 0.6 was released for Pillow < 10 and with a compiled extension. Neither is needed for
box models: torchvision has ROIAlign and NMS. Each shim acts only where something is missing, so
that a detectron2 which a user built from its repository is left as it is.
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


class MissingExtension(types.ModuleType):
    """Stand-in for ``detectron2._C``: importable, and clear about it when something is called."""

    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        raise AttributeError(
            f"{self.__name__}.{name}: this detectron2 was installed without its compiled "
            "operators (rotated boxes, deformable convolution, fast COCO evaluation)"
        )


def shim_pillow(image_module) -> bool:
    """Give ``PIL.Image`` the alias ``LINEAR``, gone since Pillow 10. True if it was missing."""
    if hasattr(image_module, "LINEAR"):
        return False
    image_module.LINEAR = image_module.BILINEAR
    return True


def shim_extension(package: str = "detectron2") -> bool:
    """Put a stand-in for ``<package>._C`` where there is none. True if it was missing.

    An extension that exists but fails to import is not replaced: its own error says more.
    """
    name = f"{package}._C"
    if name in sys.modules or importlib.util.find_spec(name) is not None:
        return False
    stand_in = MissingExtension(name)
    sys.modules[name] = stand_in
    sys.modules[package].__dict__["_C"] = stand_in
    return True


def require(package: str = "detectron2") -> None:
    """Raise a ModuleNotFoundError that says what to do where ``package`` can't be found."""
    if importlib.util.find_spec(package) is None:
        raise ModuleNotFoundError(INSTALL_HINT, name=package)


def prepare_detectron2() -> None:
    """Apply every shim that this environment needs. Call before any ``import detectron2.*``."""
    require()
    import PIL.Image

    shim_pillow(PIL.Image)
    shim_extension()
    # Detectron2 calls meshgrid without its `indexing` argument; no user can act on the warning.
    warnings.filterwarnings("ignore", message=r"torch\.meshgrid: ", category=UserWarning)
