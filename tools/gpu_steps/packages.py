"""The packages that measuring a GPU needs, on a machine where VMB-D2 may not be installed.

Of the standard library alone, so that what is missing is said at once.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

# module -> the package that has it
NEEDED = {
    "torch": "torch",
    "torchvision": "torchvision",
    "detectron2": "detectron2",
    "fvcore": "fvcore",
    "iopath": "iopath",
    "portalocker": "portalocker",
    "yacs": "yacs",
    "omegaconf": "omegaconf",
    "termcolor": "termcolor",
    "tabulate": "tabulate",
    "cloudpickle": "cloudpickle",
    "pycocotools": "pycocotools",
    "numpy": "numpy",
    "cv2": "opencv-python-headless",
    "PIL": "pillow",
    "yaml": "pyyaml",
    "tqdm": "tqdm",
    "lmdb": "lmdb",
    "h5py": "h5py",
}
# step -> what it needs beside these
NEEDED_BY = {"tests": {"pytest": "pytest", "hypothesis": "hypothesis", "hydra": "hydra-core"}}


def missing(steps: Sequence[str]) -> str | None:
    """A line that names the packages that steps lack, and what to do; None where none is missing.

    Args:
        steps: by their names.
    """
    lacking = {"every step": _absent(NEEDED)}
    lacking |= {step: _absent(NEEDED_BY[step]) for step in steps if step in NEEDED_BY}
    parts = [f"{', '.join(names)} ({step})" for step, names in lacking.items() if names]
    if not parts:
        return None
    text = (
        f"{sys.executable} lacks {'; '.join(parts)}: install them, put their wheels into wheels/, "
        "or `make install`"
    )
    others = [step for step in steps if step not in lacking]
    if lacking["every step"] or not others:
        return text
    return f"{text}; without them: GPU_STEPS={','.join(others)}"


def add_wheels(wheels: Path, target: Path) -> None:
    """Make the wheels of a folder importable, here and in child processes, without a network.

    Only those with a module that this Python lacks: its own packages stay in use.

    Args:
        wheels: the folder; it need not exist.
        target: where they are installed, once.
    """
    if not wheels.is_dir():
        return
    _add_to_path(target)
    names = {
        wheel.name.split("-")[0]
        for wheel in wheels.glob("*.whl")
        if not all(map(find_spec, _modules(wheel)))
    }
    if names:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        options = ["--no-index", "--no-deps", "--find-links", wheels, "--target", target]
        # What could not be installed, missing() names.
        subprocess.run([*pip, *map(str, options), *sorted(names)], check=False)
        importlib.invalidate_caches()


def _add_to_path(folder: Path) -> None:
    sys.path.append(str(folder))
    paths = [os.environ.get("PYTHONPATH"), str(folder)]
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)


def _modules(wheel: Path) -> set[str]:
    """The names at the top of a wheel that can be imported."""
    with zipfile.ZipFile(wheel) as archive:
        tops = {Path(name).parts[0].removesuffix(".py") for name in archive.namelist()}
    return {top for top in tops if top.isidentifier()}


def _absent(modules: dict[str, str]) -> list[str]:
    return [package for module, package in modules.items() if find_spec(module) is None]
