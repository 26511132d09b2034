"""The choice of regions by itself, on boxes and scores made up: its cost depends on the scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

import torch
from torch import Tensor

from vmb_d2.selection.options import RegionOptions
from vmb_d2.structures import box_geometry

from . import original
from .spread import Spread
from .stages import clock

REGIONS, CLASSES = 1000, 1600
KINDS = ("peaked", "flat", "equal")


def made_boxes(count: int, generator: torch.Generator) -> Tensor:
    """Inclusive boxes (count, 4) of all sizes that overlap by less than 0.7, as an RPN's do."""
    boxes = torch.zeros(0, 4)
    while len(boxes) < count:
        centres = torch.rand(4 * count, 2, generator=generator) * torch.tensor([640.0, 480.0])
        sides = torch.exp(2.5 + 3 * torch.rand(4 * count, 2, generator=generator))
        boxes = torch.cat([boxes, torch.cat([centres - sides / 2, centres + sides / 2], dim=1)])
        boxes = boxes[box_geometry.nms(boxes, -torch.arange(len(boxes)).float(), 0.7)]
    return boxes[:count]


def made_scores(kind: str, count: int, classes: int, generator: torch.Generator) -> Tensor:
    """Probabilities (count, classes).

    Args:
        kind: ``peaked``, each region sure of one class, as a trained model's regions of objects
            are; ``flat``, all classes nearly the same, as with random weights; ``equal``, all the
            same.
        count, classes: the shape.
        generator: of the numbers.
    """
    logits = torch.zeros(count, classes)
    if kind != "equal":
        logits.normal_(0, 1.0 if kind == "peaked" else 0.01, generator=generator)
    if kind == "peaked":
        sure = torch.randint(classes, (count,), generator=generator)
        logits[torch.arange(count), sure] += 12
    return logits.softmax(dim=1)


def selection_seconds(
    device: torch.device,
    repeats: int,
    progress: Callable[[str], None] = lambda text: None,
    regions: int = REGIONS,
    classes: int = CLASSES,
) -> dict:
    """What the choice takes on each kind of scores: ours, and the original's class by class.

    Returns:
        ``regions``, ``classes``, and for each of :data:`KINDS` a dict of ``ours`` and ``original``,
        seconds (a :class:`Spread` as a dict), and ``same``, whether both gave every region the same
        confidence.
    """
    generator = torch.Generator().manual_seed(0)
    boxes = made_boxes(regions, generator).to(device)
    options = RegionOptions(num_features=regions)
    now = clock(device)
    found = {"regions": regions, "classes": classes}
    for kind in KINDS:
        scores = made_scores(kind, regions, classes, generator).to(device)
        times = {"ours": [], "original": []}
        options.select(boxes, scores)  # warm
        for repeat in range(repeats):
            progress(f"selection, {kind} scores, {repeat + 1} of {repeats}")
            begin = now()
            kept = options.select(boxes, scores)
            middle = now()
            expected = original.confidences(boxes, scores, 0.0)
            times["original"].append(now() - middle)
            times["ours"].append(middle - begin)
        same = torch.equal(expected[kept.indices], kept.confidences)
        found[kind] = {
            **{name: asdict(Spread.of(values)) for name, values in times.items()},
            "same": same,
        }
    return found
