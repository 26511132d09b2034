"""VMB-D2: the region features of vqa-maskrcnn-benchmark (VMB), on Detectron2."""

from .compat import prepare_detectron2

prepare_detectron2()

from . import modeling  # noqa: E402,F401  (registers the components with detectron2)
from .config import get_cfg  # noqa: E402
from .version import __version__  # noqa: E402

__all__ = ["__version__", "get_cfg"]
