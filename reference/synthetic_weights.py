"""Deterministic synthetic weights in the maskrcnn-benchmark checkpoint layout, and in Detectron2's.

The values of the former are what they were before the latter was added. The latter is that of
unc-nlp/frcnn-vg-finetuned and of bottom-up-attention.pytorch.

The goldens in ``golden/`` were measured on the original VMB model with exactly
these weights, so a test needs no download: build the checkpoint, convert it,
run it, compare.

    python synthetic_weights.py state_dicts/tiny_x152_fpn.json tiny.pth --seed 0

Every tensor depends only on (seed, parameter name, shape) and on what the listing
gives for that seed, so one tensor can be rebuilt alone. The scales keep activations
of a 152-layer network in a sane range and spread the objectness and class scores
enough for a stable ranking.
"""

import argparse
import json
import zlib

import numpy as np
import torch

ANCHOR_BUFFERS = (
    "rpn.anchor_generator.cell_anchors",
    "proposal_generator.anchor_generator.cell_anchors",
)
DETECTRON2 = (
    "backbone.stem.",
    "backbone.res",
    "proposal_generator.",
    "roi_heads.res5.",
    "roi_heads.box_predictor.",
)
SCALES = {
    "objectness_logits": 0.3,
    "anchor_deltas": 0.06,
    "cls_score": 1.2,
    "bbox_pred": 0.5,
    "attr_score": 1.5,
    "attr_linear2": 1.5,
    "cls_embed": 8.0,
}


def synthetic_tensor(name: str, shape: tuple, seed: int = 0) -> np.ndarray:
    """Return the float32 array of ``shape`` for parameter or buffer ``name``."""
    rng = np.random.Generator(np.random.Philox(key=[seed, zlib.crc32(name.encode())]))

    def normal(scale):
        return rng.standard_normal(shape, dtype=np.float32) * np.float32(scale)

    def uniform(low, high):
        return rng.random(shape, dtype=np.float32) * np.float32(high - low) + np.float32(low)

    if name.startswith(DETECTRON2):
        return detectron2_tensor(name, shape, normal, uniform)

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


def detectron2_tensor(name, shape, normal, uniform):
    """The same for a name in Detectron2's layout: filters have no mean, so that regions differ."""
    *_, owner, module, leaf = name.split(".")
    if leaf == "running_var":
        var = uniform(0.5, 1.5)
        return var * np.float32(2.0e4) if ".stem." in name else var
    if leaf == "running_mean" or (leaf == "bias" and module == "norm"):
        return normal(0.03)
    if leaf == "weight" and len(shape) == 1:
        return uniform(0.35, 0.55) if owner == "conv3" else uniform(0.7, 1.3)
    if leaf == "bias":
        return normal(0.05)

    values = normal(SCALES.get(module, 1.0) * (2.0 / int(np.prod(shape[1:]))) ** 0.5)
    if ".stem." in name or module.startswith("cls_embed"):
        return values
    mean = values.mean(axis=tuple(range(1, len(shape))), keepdims=True, dtype=np.float64)
    return values - mean.astype(np.float32)


def synthetic_state_dict(shapes: dict, seed: int = 0, adjust: dict | None = None) -> dict:
    """Map ``{name: shape}`` to ``{name: float32 array}``, anchor buffers left out.

    ``adjust`` is what a listing's ``seeds`` holds for this seed: ``gains`` multiplies every tensor
    whose name contains its key, ``values`` then replaces whole tensors.
    """
    adjust = adjust or {}
    tensors = {
        name: synthetic_tensor(name, tuple(shape), seed)
        for name, shape in shapes.items()
        if not name.startswith(ANCHOR_BUFFERS) and not name.endswith("num_batches_tracked")
    }
    for part, gain in adjust.get("gains", {}).items():
        for name in tensors:
            if part in name:
                tensors[name] = tensors[name] * np.float32(gain)
    for name, values in adjust.get("values", {}).items():
        tensors[name] = np.asarray(values, dtype=np.float32)
    return tensors


def with_twins(state: dict, spec: dict) -> dict:
    """The state with the modules that the original has under two names."""
    for twin, first in spec.get("shared", {}).items():
        own = {name: value for name, value in state.items() if name.startswith(first)}
        state |= {twin + name.removeprefix(first): value for name, value in own.items()}
    return state


def torch_state_dict(spec: dict, seed: int = 0) -> dict:
    """All of a listing's state dict as tensors, anchors and modules with two names included."""
    adjust = spec.get("seeds", {}).get(str(seed))
    arrays = with_twins(synthetic_state_dict(spec["shapes"], seed, adjust), spec)
    state = {name: torch.from_numpy(array) for name, array in arrays.items()}
    for name, values in spec["anchors"].items():
        state[name] = torch.tensor(values, dtype=torch.float32)
    return state


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("state_dict_json", help="names and shapes, as in state_dicts/")
    parser.add_argument("output", help="where to write {'model': state_dict} with torch.save")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    with open(args.state_dict_json) as f:
        model = torch_state_dict(json.load(f), args.seed)
    torch.save({"model": model}, args.output)


if __name__ == "__main__":
    main()
