"""Non-maximum suppression in many classes, all of which have the same boxes."""

from __future__ import annotations

import torch
from torch import Tensor

from ..structures.batched_nms import as_bits


def survivors(scores: Tensor, candidates: Tensor, overlapping: Tensor) -> Tensor:
    """Which candidates survive, in each class.

    Within a class, regions rank by falling score, equal scores in the order given. A region
    survives if no survivor of a higher rank overlaps it too much. Several images are processed
    together; regions of different images don't affect each other.

    A step takes the next rank of all classes of all images. For each class of an image, a bit field
    holds which regions are suppressed. The time is proportional to N * R * R * C / 64, memory is at
    most about 50 bytes for each number in ``scores``, and the number of times that the host waits
    for a GPU depends on neither.

    Args:
        scores: float32 (N, R, C), of the regions of N images.
        candidates: bool (N, R, C), which regions take part in which classes.
        overlapping: bool (N, R, R), symmetric with False on its diagonals: which pairs of regions
            of an image overlap so much that only one of the two can survive.

    Returns:
        bool (N, R, C), False where ``candidates`` is.
    """
    counts = candidates.sum(dim=1)  # (N, C)
    contested = (counts.amax(dim=0) > 1).nonzero().squeeze(1)
    if not len(contested):
        return candidates
    images, regions, _ = scores.shape
    depth = int(counts.max())
    some = candidates[..., contested]
    ranked = scores[..., contested].where(some, -torch.inf)
    by_rank = ranked.argsort(dim=1, descending=True, stable=True)
    by_rank = by_rank[:, :depth]  # all candidates, some classes' followed by other regions
    neighbours = as_bits(overlapping.flatten(0, 1))
    suppressed = neighbours.new_zeros(images, len(contested), neighbours.shape[1])
    first = regions * torch.arange(images, device=scores.device)[:, None]  # of each image
    steps = []
    for region in by_rank[..., None].unbind(dim=1):  # (N, C, 1)
        bit = suppressed.gather(2, region >> 6) >> (region & 63) & 1
        overlapped = neighbours[first + region.squeeze(2)]
        suppressed |= overlapped & (bit - 1)  # all bits if it survives, or none
        steps.append(bit.squeeze(2) == 0)
    survives = torch.zeros_like(some).scatter(1, by_rank, torch.stack(steps, dim=1))
    result = candidates.clone()
    result[..., contested] = survives & some
    return result
