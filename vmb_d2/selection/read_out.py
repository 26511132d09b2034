"""The regions that an extraction keeps of the network's output, as NumPy arrays.

All images of a batch are processed together, so that the number of times that the host waits for a
GPU doesn't grow with the number of images.
"""

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
    """RegionFeatures of each image, from tensors of each image in the order of storage."""
    names = list(features)
    arrays = {
        **{f"feature {name}": [own.float() for own in features[name]] for name in names},
        "bbox": [own.float() for own in boxes],
        "objects": [own.argmax(dim=1) for own in scores],
        "cls_prob": scores,
        **further,
    }
    on_host = dict(zip(arrays, to_host(list(arrays.values())), strict=True))
    result = []
    for i, image in enumerate(images):
        values: dict[str, Any] = {name: pieces[i] for name, pieces in on_host.items()}
        of_features = {name: values.pop(f"feature {name}") for name in names}
        if "choice_is_finite" in values:
            values["choice_is_finite"] = bool(values["choice_is_finite"].all())
        result.append(
            RegionFeatures(
                features=of_features.pop(names[0]),
                num_boxes=num_boxes[i],
                image_width=image.width,
                image_height=image.height,
                further=of_features,
                **values,
            )
        )
    return result


def to_host(arrays: Sequence[Sequence[Tensor]]) -> list[list[np.ndarray]]:
    """Copy tensors to the host as NumPy arrays.

    From a GPU, each sequence is one copy, and the host waits once for all copies. Tensors on the
    host are not copied; they share their memory with the result.

    Args:
        arrays: sequences of tensors (n_i, ...), such as one for each image. The tensors of one
            sequence are on one device.

    Returns:
        Arrays in the same sequences. From a GPU, each array has memory of its own.
    """
    copies = {
        number: torch.cat(list(pieces)).to("cpu", non_blocking=True)  # into pinned memory
        for number, pieces in enumerate(arrays)
        if pieces and pieces[0].device.type != "cpu"
    }
    for device in {arrays[number][0].device for number in copies}:
        torch.cuda.current_stream(device).synchronize()
    result = []
    for number, pieces in enumerate(arrays):
        if number in copies:
            parts = copies[number].split([len(piece) for piece in pieces])
            # Copied again, so that no result keeps pinned memory, or the whole batch, alive.
            result.append([part.numpy().copy() for part in parts])
        else:
            result.append([piece.numpy() for piece in pieces])
    return result


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
