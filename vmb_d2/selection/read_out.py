"""The regions that an extraction keeps of the network's output, as NumPy arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..data.preprocessing import NetworkImage
from ..structures.regions import RegionFeatures
from .most_confident import select_adaptively, select_regions
from .options import RegionOptions

if TYPE_CHECKING:
    from detectron2.structures import Instances


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
    threshold = options.confidence_threshold
    if options.bounds:
        kept = select_adaptively(boxes, scores, *options.bounds, threshold)
    else:
        kept = select_regions(boxes, scores, options.num_features, threshold)

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
        confidence=[selection.confidences for selection in kept],
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
    """RegionFeatures of each image, from tensors of each image in the order of storage."""
    if not images:
        return []
    of_features = {name: _to_host([own.float() for own in each]) for name, each in features.items()}
    arrays = {
        "bbox": [own.float() for own in boxes],
        "objects": [own.argmax(dim=1) for own in scores],
        "cls_prob": scores,
        **further,
    }
    on_host = {name: _to_host(each) for name, each in arrays.items()}
    result = []
    for i, image in enumerate(images):
        values: dict[str, Any] = {name: each[i] for name, each in on_host.items()}
        if "choice_is_finite" in values:
            values["choice_is_finite"] = bool(values["choice_is_finite"].all())
        first, *others = of_features
        result.append(
            RegionFeatures(
                features=of_features[first][i],
                num_boxes=num_boxes[i],
                image_width=image.width,
                image_height=image.height,
                further={name: of_features[name][i] for name in others},
                **values,
            )
        )
    return result


def _to_host(tensors: list[Tensor]) -> list[np.ndarray]:
    """Tensors (n_i, ...) of the images of a batch as arrays, which share the batch's memory."""
    together = torch.cat(tensors).cpu()
    return [part.numpy() for part in together.split([len(own) for own in tensors])]


def _is_finite(proposals: Instances) -> Tensor:
    """Bool (1,): whether there are proposals, and their logits and objectness are finite."""
    finite = proposals.class_logits.isfinite().all() & (len(proposals) > 0)
    if proposals.has("objectness"):
        finite &= proposals.objectness.isfinite().all()
    return finite.reshape(1)


def _scores(class_logits: Tensor, background: bool) -> Tensor:
    """Probabilities (R, C): the background is the first column, or none."""
    probabilities = class_logits.float().softmax(dim=1)
    foreground, last = probabilities[:, :-1], probabilities[:, -1:]
    return torch.cat([last, foreground], dim=1) if background else foreground
