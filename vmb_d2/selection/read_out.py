"""What an extraction keeps of the network's regions, brought to the host.

All images of a batch together: how often a GPU is waited for doesn't grow with their number.
"""

from __future__ import annotations

from .. import modeling  # noqa: F401  (prepares detectron2 for the imports below)

# isort: split

from collections.abc import Sequence

import numpy as np
import torch
from detectron2.structures import Instances
from torch import Tensor

from ..data.preprocessing import NetworkImage
from ..structures.regions import RegionFeatures
from .host import to_host
from .options import RegionOptions


def chosen_regions(
    regions: Sequence[Instances],
    images: Sequence[NetworkImage],
    feature_names: Sequence[str],
    options: RegionOptions,
) -> list[RegionFeatures]:
    """The regions of each image that ``options`` choose.

    Args:
        regions: of each image, as :meth:`vmb_d2.modeling.VMBRCNN.regions` gives them.
        images: theirs.
        feature_names: of the regions; the first is ``RegionFeatures.features``.
        options: which to keep.
    """
    boxes = [
        r.proposal_boxes.tensor / image.scale for r, image in zip(regions, images, strict=True)
    ]
    scores = [_scores(r.class_logits, options.background) for r in regions]
    kept = options.select_of_each(boxes, scores)

    def rows_of(values: list[Tensor]) -> list[Tensor]:
        pairs = zip(values, kept, strict=True)
        return [own.index_select(0, selection.indices) for own, selection in pairs]

    return _to_regions(
        images,
        {name: rows_of([r.get(name) for r in regions]) for name in feature_names},
        rows_of(boxes),
        rows_of(scores),
        num_boxes=[selection.num_boxes for selection in kept],
        choice_is_finite=[_is_finite(r) for r in regions],
        confidence=[selection.confidences.clone() for selection in kept],
    )


def given_regions(
    regions: Sequence[Instances],
    images: Sequence[NetworkImage],
    boxes: Sequence[Tensor],
    feature_names: Sequence[str],
    background: bool,
) -> list[RegionFeatures]:
    """All regions of each image, with their class logits.

    Args:
        regions, images, feature_names: see :func:`chosen_regions`.
        boxes: those that ``regions`` are of, inclusive, (n, 4) in original pixels.
        background: let it be column 0 of ``cls_prob``.
    """
    logits = [r.class_logits.float() for r in regions]
    return _to_regions(
        images,
        {name: [r.get(name) for r in regions] for name in feature_names},
        list(boxes),
        [_scores(own, background) for own in logits],
        num_boxes=[len(own) for own in boxes],
        class_logits=[own.roll(1, dims=1) for own in logits],  # background first, as VMB has it
    )


def _to_regions(
    images: Sequence[NetworkImage],
    features: dict[str, list[Tensor]],
    boxes: list[Tensor],
    scores: list[Tensor],
    num_boxes: list[int],
    **further: list[Tensor],
) -> list[RegionFeatures]:
    """All of these for each image, in the order in which they are to be stored."""
    arrays = {
        "bbox": [own.float() for own in boxes],
        "objects": [own.argmax(dim=1) for own in scores],
        "cls_prob": scores,
        **further,
    }
    names = list(features)
    as_float = [[own.float() for own in values] for values in features.values()]
    brought = to_host([*as_float, *arrays.values()])
    result = []
    for image, count, *found in zip(images, num_boxes, *brought, strict=True):
        own_features, others = found[: len(names)], found[len(names) :]
        values = dict(zip(arrays, others, strict=True))
        values["choice_is_finite"] = bool(np.all(values.get("choice_is_finite", True)))
        result.append(
            RegionFeatures(
                features=own_features[0],
                num_boxes=count,
                image_width=image.width,
                image_height=image.height,
                further=dict(zip(names[1:], own_features[1:], strict=True)),
                **values,
            )
        )
    return result


def _is_finite(proposals: Instances) -> Tensor:
    """Whether there are proposals, and all that they were chosen by is finite: bool (1,)."""
    finite = proposals.class_logits.isfinite().all() & (len(proposals) > 0)
    if proposals.has("objectness"):
        finite &= proposals.objectness.isfinite().all()
    return finite.reshape(1)


def _scores(class_logits: Tensor, background: bool) -> Tensor:
    """Probabilities (R, C) in MMF's columns."""
    probabilities = class_logits.float().softmax(dim=1)
    foreground, last = probabilities[:, :-1], probabilities[:, -1:]
    return torch.cat([last, foreground], dim=1) if background else foreground
