"""The programs in this folder as console commands. In the wheel the folder is ``vmb_d2_tools``."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path


def _command(name: str) -> Callable[[], int]:
    """What runs the program ``name``, whose modules import each other as when it is a script."""

    def run() -> int:
        sys.path.insert(0, str(Path(__file__).parent))
        return importlib.import_module(name).program()

    return run


extract = _command("extract")
pack = _command("pack")
compare = _command("compare_features")
visualize = _command("visualize")
status = _command("status")
