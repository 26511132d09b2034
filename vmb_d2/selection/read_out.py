"""The regions that an extraction keeps of the network's output, as NumPy arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..config.read_out import ReadOut
from ..data.preprocessing import NetworkImage
from ..structures.regions import RegionFeatures
from ..utils.devices import on_device
from .choice import Candidates, choose

if TYPE_CHECKING:
    from detectron2.structures import Instances

    from ..modeling import VMBRCNN, NetworkOutput


def chosen_regions(
    model: VMBRCNN,
    output: NetworkOutput,
    images: Sequence[NetworkImage],
    feature_names: Sequence[str],
    rule: ReadOut,
    background: bool,
) -> list[RegionFeatures]:
    """The regions of each image that a read-out chooses.

    Args:
        model: whose output it is.
        output: of the network.
        images: of the batch.
        feature_names: of the regions; the first is ``RegionFeatures.features``.
        rule: which to keep.
        background: let it be a class, column 0 of ``cls_prob``.
    """
    regions = output.regions
    scales = _scales(images, model.device)
    proposals = [r.proposal_boxes.tensor for r in regions]
    scores = [_scores(r.class_logits, background) for r in regions]
    candidates = [Candidates(*own) for own in zip(proposals, scores, scales, strict=True)]
    regressed = model.regression(regions) if rule.regressed and regions else None
    choices = choose(candidates, rule, regressed)

    def rows_of(values: list[Tensor]) -> list[Tensor]:
        pairs = zip(values, choices, strict=True)
        return [own.index_select(0, choice.indices) for own, choice in pairs]

    features = {name: rows_of([r.get(name) for r in regions]) for name in feature_names}
    boxes = rows_of(proposals)
    if regressed is not None:
        numbers = [torch.full_like(own.indices, i) for i, own in enumerate(choices)]
        rows = ([own.indices for own in choices], [own.classes for own in choices])
        joined = regressed(*map(torch.cat, (numbers, *rows)))
        boxes = list(joined.split([len(own) for own in numbers]))
    further = {}
    if rule.own_class:
        further["objects_conf"] = [choice.confidences for choice in choices]
    if model.predicts_attributes:
        further |= _attributes(
            model,
            output,
            boxes=boxes if rule.regressed else None,
            classes=[
                _numbered(choice.classes, own, background)
                for choice, own in zip(choices, scores, strict=True)
            ],
            logits=rows_of([r.class_logits for r in regions]),
            features=rows_of([r.get(model.feature_names[-1]) for r in regions]),
        )
    return _to_regions(
        images,
        features,
        [own / scale for own, scale in zip(boxes, scales, strict=True)],
        rows_of(scores),
        num_boxes=[choice.num_boxes for choice in choices],
        objects=[choice.classes for choice in choices],
        **further,
        choice_is_finite=[_is_finite(r) for r in regions],
        confidence=[choice.confidences for choice in choices],
    )


def given_regions(
    model: VMBRCNN,
    output: NetworkOutput,
    images: Sequence[NetworkImage],
    boxes: Sequence[Tensor],
    feature_names: Sequence[str],
    background: bool,
) -> list[RegionFeatures]:
    """All regions of each image, with their class logits.

    Args:
        model, output, images, feature_names: see :func:`chosen_regions`.
        boxes: those that the output is of, (n, 4) in original pixels.
        background: let it be column 0 of ``cls_prob``.
    """
    regions = output.regions
    logits = [r.class_logits.float() for r in regions]
    scores = [_scores(own, background) for own in logits]
    classes = [own.argmax(dim=1) for own in scores]
    attributes = {}
    if model.predicts_attributes:
        features = [r.get(model.feature_names[-1]) for r in regions]
        pairs = zip(classes, scores, strict=True)
        numbers = [_numbered(own, of, background) for own, of in pairs]
        attributes = _attributes(model, output, None, numbers, logits, features)
    return _to_regions(
        images,
        {name: [r.get(name) for r in regions] for name in feature_names},
        list(boxes),
        scores,
        num_boxes=[len(own) for own in boxes],
        objects=classes,
        **attributes,
        class_logits=[own.roll(1, dims=1) for own in logits],  # background first, as VMB has it
    )


def _attributes(
    model: VMBRCNN,
    output: NetworkOutput,
    boxes: list[Tensor] | None,
    classes: list[Tensor],
    logits: list[Tensor],
    features: list[Tensor],
) -> dict[str, list[Tensor]]:
    """The attributes of the regions of each image, by the fields of RegionFeatures.

    Args:
        boxes: (K, 4), network pixels, where they are others than those of the features.
        classes: int64 (K,), without the background.
        logits: (K, C + 1), of the classes, the background last.
        features: (K, D), from which the classes were predicted.
    """
    found = model.roi_heads.attributes(
        output.maps, torch.cat(features), torch.cat(classes), torch.cat(logits), boxes
    )
    counts = [len(own) for own in classes]
    ids, scores = found.ids.split(counts), found.scores.split(counts)
    return {
        "attrs_id": [own[:, 0] for own in ids],
        "attrs_conf": [own[:, 0] for own in scores],
        "attribute_ids": list(ids),
        "attribute_scores": list(scores),
    }


def _numbered(columns: Tensor, scores: Tensor, background: bool) -> Tensor:
    """The classes of columns of the scores: from 0, the background's is the last.

    ``background``: whether it is the first column.
    """
    return (columns - 1) % scores.shape[1] if background else columns


def _scales(images: Sequence[NetworkImage], device: torch.device) -> list[Tensor | float]:
    """Network pixels per original pixel: one number, or float32 (4,) of x, y, x, y."""
    scales = [image.scales for image in images]
    if all(x == y for x, y in scales):
        return [x for x, _ in scales]
    tensors = on_device([(x, y, x, y) for x, y in scales], device, torch.float32)
    pairs = zip(scales, tensors, strict=True)
    return [x if x == y else tensor for (x, y), tensor in pairs]


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
    on_host = _to_host(
        {name: [own.float() for own in each] for name, each in features.items()}
        | {"bbox": [own.float() for own in boxes], "cls_prob": scores}
        | further
    )
    of_features = {name: on_host.pop(name) for name in features}
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


def _to_host(arrays: dict[str, list[Tensor]]) -> dict[str, list[np.ndarray]]:
    """Tensors (n_i, ...) of the images of a batch as arrays, which share the batch's memory.

    A GPU is waited for once, for all of them.
    """
    together = {name: torch.cat(tensors) for name, tensors in arrays.items()}
    copies = {name: tensor.to("cpu", non_blocking=True) for name, tensor in together.items()}
    for device in {tensor.device for tensor in together.values() if tensor.is_cuda}:
        torch.cuda.current_stream(device).synchronize()
    return {
        name: [part.numpy() for part in copy.split([len(own) for own in arrays[name]])]
        for name, copy in copies.items()
    }


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
