"""Import this first: without what the programs need, they say in one line how to get it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def _say_how(kind, error, traceback) -> None:
    """In the place of the traceback, for a package that isn't installed."""
    package = (getattr(error, "name", None) or "sys").partition(".")[0]
    if not issubclass(kind, ModuleNotFoundError) or importlib.util.find_spec(package):
        sys.__excepthook__(kind, error, traceback)
        return
    how = "`pip install 'vmb-d2[app]'` installs what the programs need"
    if (ROOT / "Makefile").exists():  # not in a wheel
        how = (
            f"`make install` in {ROOT} makes an environment with it, "
            f"`. {ROOT}/.venv/bin/activate` enters it"
        )
    print(f"error: {sys.executable} has no {package}: {how}", file=sys.stderr)
    sys.exit(2)


sys.excepthook = _say_how
