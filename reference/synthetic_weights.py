"""Deterministic synthetic weights in the maskrcnn-benchmark checkpoint layout.

The goldens in ``golden/`` were measured on the original VMB model with exactly
these weights, so a test needs no download: build the checkpoint, convert it,
run it, compare.

    python synthetic_weights.py state_dicts/tiny_x152_fpn.json tiny.pth --seed 0

Every tensor depends only on (seed, parameter name, shape), so one tensor can be
rebuilt alone. The scales keep activations of a 152-layer network in a sane range
and spread the objectness and class scores enough for a stable ranking.
"""

import argparse
import json
import zlib

import numpy as np

ANCHOR_BUFFERS = "rpn.anchor_generator.cell_anchors"


def synthetic_tensor(name: str, shape: tuple, seed: int = 0) -> np.ndarray:
    """Return the float32 array of ``shape`` for parameter or buffer ``name``."""
    rng = np.random.Generator(np.random.Philox(key=[seed, zlib.crc32(name.encode())]))

    def normal(scale):
        return rng.standard_normal(shape, dtype=np.float32) * np.float32(scale)

    def uniform(low, high):
        return rng.random(shape, dtype=np.float32) * np.float32(high - low) + np.float32(low)

    *_, module, leaf = name.split(".")
    if leaf == "running_mean":
        return normal(0.1)
    if leaf == "running_var":
        var = uniform(0.5, 1.5)
        return var * np.float32(2.0e4) if ".stem." in name else var
    if leaf == "bias" and (module.startswith("bn") or module == "1"):
        return normal(0.1)
    if leaf == "weight" and len(shape) == 1:
        return uniform(0.05, 0.15) if module == "bn3" else uniform(0.7, 1.3)
    if leaf == "bias":
        return normal(0.05)

    std = (2.0 / int(np.prod(shape[1:]))) ** 0.5
    if "cls_logits" in name:
        std *= 0.4
    elif name.startswith("rpn") and "bbox_pred" in name:
        std *= 0.12
    elif "cls_score" in name:
        std *= 0.8
    elif "bbox_pred" in name:
        std *= 0.5
    elif "fpn" in name:
        std *= 0.7
    return normal(std)


def synthetic_state_dict(shapes: dict, seed: int = 0) -> dict:
    """Map ``{name: shape}`` to ``{name: float32 array}``, anchor buffers left out."""
    return {
        name: synthetic_tensor(name, tuple(shape), seed)
        for name, shape in shapes.items()
        if not name.startswith(ANCHOR_BUFFERS)
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("state_dict_json", help="names and shapes, as in state_dicts/")
    parser.add_argument("output", help="where to write {'model': state_dict} with torch.save")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    import torch

    with open(args.state_dict_json) as f:
        spec = json.load(f)
    model = {
        k: torch.from_numpy(v) for k, v in synthetic_state_dict(spec["shapes"], args.seed).items()
    }
    for name, values in spec["anchors"].items():
        model[name] = torch.tensor(values, dtype=torch.float32)
    torch.save({"model": model}, args.output)


if __name__ == "__main__":
    main()
