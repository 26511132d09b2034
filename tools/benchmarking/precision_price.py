"""What a lower precision costs: how far its features are from those of float32, on photographs.

    python tests/precision_price.py bf16 x152 tiny_x152_fpn --images coffee.png rocket.jpg

Prints a line of docs/precision.md's table for each model, all with the synthetic weights. The
full-size models take some 4 GB of memory.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import support
import torch

from reference import goldens
from vmb_d2.checkpoint.pretrained import load_model
from vmb_d2.comparison.fidelity import nearest_boxes, relative_errors
from vmb_d2.extractor import RegionFeatureExtractor
from vmb_d2.utils.devices import PRECISIONS

PHOTOGRAPHS = ("camera.png", "chelsea.png", "coffee.png", "rocket.jpg")
NEAR = 2  # original pixels
HEADER = (
    "| model | boxes within 2 px | their features: median, worst | their classes equal "
    "| same boxes given: median, worst | classes equal |\n|---|---|---|---|---|---|"
)


def network(name, device):
    """A model with the synthetic weights, in float32."""
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "vmb.pth"
        torch.save({"model": support.vmb_state(name)}, weights)
        cache = Path(folder) / "cache"
        return load_model(weights, support.description(name), device=device, cache_dir=cache)


def price(model, precision, images):
    """The figures of one model over all images' regions, in the table's order.

    Returns:
        Share of the float32 boxes that have a box of ``precision`` within 2 px; of these, the
        relative L2 errors of features and which have the same class; and the same two of all where
        ``precision`` is given the float32 boxes. Errors float32 (R,), classes bool (R,).
    """
    exact = RegionFeatureExtractor(model)
    rough = RegionFeatureExtractor(model, precision=precision)
    found = {key: [] for key in ("near", "errors", "same", "given_errors", "given_same")}
    for image in images:
        expected, own = exact(image), rough(image)
        nearest, distances = nearest_boxes(expected.bbox, own.bbox)
        near = distances <= NEAR
        features, classes = own.features[nearest], own.objects[nearest]
        found["near"].append(near)
        found["errors"].append(relative_errors(expected.features, features)[near])
        found["same"].append((expected.objects == classes)[near])
        given = rough(image, boxes=expected.bbox)
        found["given_errors"].append(relative_errors(expected.features, given.features))
        found["given_same"].append(expected.objects == given.objects)
    joined = {key: np.concatenate(values) for key, values in found.items()}
    return (joined.pop("near").mean(), *joined.values())


def line(name, model, precision, images):
    near, errors, same, given_errors, given_same = price(model, precision, images)
    return (
        f"| `{name}` | {near:.1%} | {np.median(errors):.1e}, {errors.max():.1e} | {same.mean():.1%}"
        f" | {np.median(given_errors):.1e}, {given_errors.max():.1e} | {given_same.mean():.1%} |"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("precision", choices=PRECISIONS)
    parser.add_argument("models", nargs="+", choices=(*support.FULL_MODELS, *support.TINY_MODELS))
    parser.add_argument("--images", nargs="+", default=PHOTOGRAPHS, help="of the demo")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    images = [goldens.image_path(name) for name in args.images]
    print(HEADER)
    for name in args.models:
        print(line(name, network(name, args.device), args.precision, images), flush=True)


if __name__ == "__main__":
    main()
