"""What both demos do with the photographs in this folder."""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def output_folder(description: str) -> Path:
    """The folder named on the command line, made if it isn't there."""
    options = argparse.ArgumentParser(description=description)
    options.add_argument("--output", type=Path, default=ROOT / "demo" / "output")
    output = options.parse_args().output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    return output


def run(*command):
    """Run a program of the project; where it fails, end with its exit status."""
    print("$", "python", *(str(c).replace(f"{ROOT}/", "") for c in command), flush=True)
    status = subprocess.run([sys.executable, *command], cwd=ROOT, check=False).returncode
    if status:
        sys.exit(status)


def extract(folder: Path, *options: str) -> Path:
    """Extract the photographs. Nothing of an earlier run stays in the folder, the page included.

    Returns the output folder of the features.
    """
    features = folder / "features"
    for old in (features, folder / "page"):
        shutil.rmtree(old, ignore_errors=True)
    run("tools/extract.py", *options, "input.dir=demo", f"output.dir={features}")
    return features


def draw(folder: Path, *options: str):
    """Draw the page of what was extracted into the folder, and print its path."""
    page = folder / "page"
    run("tools/visualize.py", folder / "features", "demo", "--output", page, "--no-png", *options)
    print(f"\nThe photographs with their boxes: {page / 'index.html'}")
