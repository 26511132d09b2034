"""The most confident regions by one suppression over all proposals, for all images of a batch.

The number of times that the host waits for a GPU doesn't depend on the number of images.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..config.read_out import ReadOut
from ..structures.box_geometry import CONVENTIONS
from .most_confident import Selection, padded

_EXCLUDED = 100  # confidences up to the threshold divided by this have no part in suppression


def select_once(
    boxes: Sequence[Tensor], scores: Sequence[Tensor], classes: Sequence[Tensor], read_out: ReadOut
) -> list[Selection]:
    """The regions of each image that ``read_out`` chooses, the most confident first.

    Args:
        boxes: for each image float32 (R_i, 4).
        scores: for each image float32 (R_i,), the highest of each region.
        classes: for each image int64 (R_i,), those of the scores.
        read_out: one that suppresses ``"once"``.
    """
    if not boxes:
        return []
    ranked, order = padded(scores, -torch.inf).sort(dim=1, descending=True, stable=True)
    of_rank = padded(boxes, 0).gather(1, order[:, :, None].expand(-1, -1, 4))
    candidates = ranked > read_out.threshold / _EXCLUDED
    convention, kept = CONVENTIONS[read_out.convention], candidates
    few = torch.ones(len(boxes), 1, dtype=torch.bool, device=ranked.device)
    for overlap in read_out.overlaps:
        kept = convention.kept(of_rank, candidates, overlap).where(few, kept)
        few = kept.sum(dim=1, keepdim=True) < read_out.least
        if len(read_out.overlaps) > 1 and not few.any():
            break
    first = kept.byte().sort(dim=1, descending=True, stable=True).indices[:, : read_out.most]
    indices, ranked, kept = (values.gather(1, first) for values in (order, ranked, kept))
    above = (kept & (ranked >= read_out.threshold)).sum(dim=1)
    count = above.clamp(min=read_out.least).minimum(kept.sum(dim=1))
    confident = (kept & (ranked > 0)).sum(dim=1).minimum(count)
    numbers = torch.stack([count, confident], dim=1).tolist()
    return [
        Selection(own[:length], values[:length], of_image[own[:length]], num_boxes)
        for own, values, of_image, (length, num_boxes) in zip(
            indices, ranked, classes, numbers, strict=True
        )
    ]
