"""The step "selection": the choice of regions alone, on scores of three kinds."""

from __future__ import annotations

import functools
import statistics

import numpy as np
import torch

from vmb_d2.config.read_out import MMF_READ_OUT
from vmb_d2.selection.choice import Candidates, choose
from vmb_d2.utils.devices import clock

from .steps import Result, Step

REGIONS, CLASSES = 1000, 1600
BATCH_SIZES = (1, 8)
SIDES = (20, 200)  # of boxes, in pixels of an image of 1000 x 1000


def selection_step(device: torch.device, repeats: int) -> Step:
    """Each kind of scores.

    Args:
        device: of the boxes and scores.
        repeats: how many times each figure is taken.
    """
    kinds = ("peaked", "flat", "equal")
    cases = {kind: functools.partial(milliseconds, kind, device, repeats) for kind in kinds}
    return Step("selection", cases, weight=0.5)


def milliseconds(kind: str, device: torch.device, repeats: int) -> Result:
    """The median time of an image, in batches of several sizes."""
    now, found = clock(device), {}
    for size in BATCH_SIZES:
        made = [made_up(kind, seed) for seed in range(size)]
        images = [Candidates(boxes.to(device), scores.to(device), 1.0) for boxes, scores in made]
        seconds = []
        for _ in range(1 + repeats):
            begin = now()
            choose(images, MMF_READ_OUT)
            seconds.append(now() - begin)
        found[str(size)] = 1000 * statistics.median(seconds[1:]) / size
    times = ", ".join(f"{each:.2f} ms in batches of {size}" for size, each in found.items())
    return {"summary": f"{times}, an image", "milliseconds": found}


def made_up(kind: str, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Boxes (R, 4) and scores (R, C) of an image.

    Args:
        kind: ``"peaked"``: each region is sure of a class. ``"flat"``: the scores of a region are
            nearly equal. ``"equal"``: all are equal.
    """
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, 1000, (REGIONS, 2))
    boxes = np.concatenate([corners, corners + rng.integers(*SIDES, (REGIONS, 2))], axis=1)
    logits = rng.standard_normal((REGIONS, CLASSES + 1), dtype=np.float32)
    if kind == "peaked":
        logits[np.arange(REGIONS), np.arange(REGIONS) % 37] += 12
    else:
        logits *= {"flat": 1e-3, "equal": 0}[kind]
    scores = torch.from_numpy(logits).softmax(dim=1)[:, :CLASSES]
    return torch.from_numpy(boxes).float(), scores
