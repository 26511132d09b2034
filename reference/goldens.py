"""The goldens' files. Their names are ``<model>.seed<S>.<tag>.<image>.npz``."""

import re
from pathlib import Path

import numpy as np

from vmb_d2.structures.regions import RegionFeatures

REFERENCE = Path(__file__).parent
DEMO = REFERENCE.parent / "demo"


def image_path(name: str) -> Path:
    """An image of the goldens: the photographs are the demo's."""
    own = REFERENCE / "images" / name
    return own if own.exists() else DEMO / name


def find(pattern: str) -> list[tuple[Path, str, str]]:
    """(path, tag, image name) of the goldens whose file name matches, sorted."""
    found = []
    for path in sorted((REFERENCE / "golden").iterdir()):
        if re.match(pattern, path.name):
            name = re.fullmatch(r"\w+\.seed0\.(.+)\.(\w+\.(?:png|jpg))\.npz", path.name)
            found.append((path, *name.groups()))
    return found


def regions_of(golden) -> RegionFeatures:
    """A loaded golden's regions; of ``cls_prob`` it has each region's highest only."""
    return RegionFeatures(
        features=golden["features"],
        bbox=golden["bbox"],
        num_boxes=int(golden["num_boxes"]),
        objects=golden["objects"],
        cls_prob=golden["cls_prob_max"][:, None],
        image_width=int(golden["image_width"]),
        image_height=int(golden["image_height"]),
    )


def load(path: Path) -> RegionFeatures:
    """A golden's regions."""
    return regions_of(np.load(path))
