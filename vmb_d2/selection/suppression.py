"""Non-maximum suppression in each class of each image of a batch.

Within a class, regions rank by falling score, equal scores in the order given. A region survives if
no survivor of a higher rank overlaps it too much. Regions of different images don't affect each
other. The number of times that the host waits for a GPU depends on no size.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..structures.batched_nms import as_bits
from ..structures.box_geometry import BoxConvention


def survivors(scores: Tensor, candidates: Tensor, overlapping: Tensor) -> Tensor:
    """Which candidates survive, where all classes have the same boxes.

    A step takes the next rank of all classes of all images. For each class of an image, a bit field
    holds which regions are suppressed. The time is proportional to N * R * R * C / 64, memory is at
    most about 50 bytes for each number in ``scores``.

    Args:
        scores: float32 (N, R, C), of the regions of N images.
        candidates: bool (N, R, C), which regions take part in which classes.
        overlapping: bool (N, R, R), symmetric with False on its diagonals: which pairs of regions
            of an image overlap so much that only one of the two can survive.

    Returns:
        bool (N, R, C), False where ``candidates`` is.
    """

    def survive(by_rank: Tensor, _classes: Tensor) -> Tensor:
        images, regions, _ = overlapping.shape
        neighbours = as_bits(overlapping.flatten(0, 1))
        suppressed = neighbours.new_zeros(images, by_rank.shape[2], neighbours.shape[1])
        first = regions * torch.arange(images, device=scores.device)[:, None]  # of each image
        steps = []
        for region in by_rank[..., None].unbind(dim=1):  # (N, C, 1)
            bit = suppressed.gather(2, region >> 6) >> (region & 63) & 1
            overlapped = neighbours[first + region.squeeze(2)]
            suppressed |= overlapped & (bit - 1)  # all bits if it survives, or none
            steps.append(bit.squeeze(2) == 0)
        return torch.stack(steps, dim=1)

    return _in_each_class(scores, candidates, survive)


def survivors_of_own_boxes(
    scores: Tensor,
    candidates: Tensor,
    boxes_of: Callable[[Tensor, Tensor], Tensor],
    convention: BoxConvention,
    overlap: float,
) -> Tensor:
    """Which candidates survive, where a region has a box of its own in each class.

    Args:
        scores, candidates: see :func:`survivors`.
        boxes_of: gives the boxes (N, C', K, 4) of regions int64 (N, C', K) in classes int64
            (C', 1). It is also asked for regions that are no candidates.
        convention: of the overlaps.
        overlap: above which the region with the lower score is suppressed.

    Returns:
        bool (N, R, C), False where ``candidates`` is.
    """

    def survive(by_rank: Tensor, classes: Tensor) -> Tensor:
        regions = by_rank.transpose(1, 2)
        take_part = candidates[..., classes].transpose(1, 2).gather(2, regions)
        sets = boxes_of(regions, classes[:, None]).flatten(0, 1), take_part.flatten(0, 1)
        return convention.kept(*sets, overlap).view(regions.shape).transpose(1, 2)

    return _in_each_class(scores, candidates, survive)


def _in_each_class(
    scores: Tensor, candidates: Tensor, survive: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """The survivors in the classes that have several candidates of an image, and all others.

    ``survive``: gives, from the regions int64 (N, K, C') by rank, all candidates first, and their
    classes int64 (C',), which survive.
    """
    depth, contested = candidates.shape[1], torch.arange(candidates.shape[2], device=scores.device)
    if not depth or len(contested) > 1:  # a single one isn't worth a wait for a GPU
        counts = candidates.sum(dim=1)  # (N, C)
        contested = (counts.amax(dim=0) > 1).nonzero().squeeze(1)
        if not len(contested):
            return candidates
        depth = int(counts.max())
    some = candidates[..., contested]
    ranked = scores[..., contested].where(some, -torch.inf)
    by_rank = ranked.argsort(dim=1, descending=True, stable=True)
    by_rank = by_rank[:, :depth]  # all candidates, some classes' followed by other regions
    survives = torch.zeros_like(some).scatter(1, by_rank, survive(by_rank, contested))
    result = candidates.clone()
    result[..., contested] = survives & some
    return result
