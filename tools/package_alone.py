"""Import this before the package, where nothing of the network is needed, or not at once.

The package's ``__init__`` imports torch and detectron2: seconds, and hundreds of files on a file
system that others wait for. Its other modules are then imported without it.
"""

from __future__ import annotations

import importlib.util
import sys

import environment  # noqa: F401  (before anything that has to be installed)

spec = importlib.util.find_spec("vmb_d2")
if spec is not None and "vmb_d2" not in sys.modules:
    sys.modules["vmb_d2"] = importlib.util.module_from_spec(spec)


def complete() -> None:
    """Run the package's ``__init__`` now: the network is needed."""
    package = sys.modules["vmb_d2"]
    if not hasattr(package, "__version__"):
        package.__spec__.loader.exec_module(package)
