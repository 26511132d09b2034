"""Non-maximum suppression in many classes, all of which have the same boxes.

Within a class, regions rank by falling score, equal scores in the order given. A region survives
if no survivor of a higher rank overlaps it too much. Several images are processed together; regions
of different images don't affect each other. The number of times that the host waits for a GPU
doesn't depend on the number of images.
"""

from __future__ import annotations

import torch
from torch import Tensor

# _by_rounds is faster than _by_ranks where each region overlaps few others and few rounds are
# needed, usually 3 to 8. Its sums of bytes are correct for up to 255 neighbours.
MOST_NEIGHBOURS = 32
MOST_ROUNDS = 32

# Largest number of comparisons of two scores, for each image, in one step of a round. A comparison
# takes about 30 bytes.
COMPARISONS = 2**20


def survivors(scores: Tensor, candidates: Tensor, overlapping: Tensor) -> Tensor:
    """Which candidates survive, in each class.

    Where each region overlaps few others, the time is proportional to C times the number of
    overlapping pairs, otherwise to N * R * R * C / 64. Memory is at most about 50 bytes for each
    number in ``scores``.

    Args:
        scores: float32 (N, R, C), of the regions of N images.
        candidates: bool (N, R, C), which regions take part in which classes.
        overlapping: bool (N, R, R), symmetric with False on its diagonals: which pairs of regions
            of an image overlap so much that only one of the two can survive.

    Returns:
        bool (N, R, C), False where ``candidates`` is.
    """
    images, regions, _ = scores.shape
    contested = (candidates.sum(dim=1).amax(dim=0) > 1).nonzero().squeeze(1)
    if not len(contested):
        return candidates
    pairs = overlapping.triu().nonzero()
    pairs = pairs[:, 1:] + regions * pairs[:, :1]  # indices into the regions of all images
    sparse = int(overlapping.sum(dim=2).max()) <= MOST_NEIGHBOURS
    at_once = images * COMPARISONS // max(len(pairs), 1) if sparse else len(contested)
    scores, candidates = scores.flatten(0, 1), candidates.flatten(0, 1)
    result = candidates.clone()
    for classes in contested.split(max(at_once, 1)):
        some_scores, some_candidates = scores[:, classes], candidates[:, classes]
        solved = _by_rounds(some_scores, some_candidates, pairs) if sparse else None
        if solved is None:
            solved = _by_ranks(some_scores, some_candidates, overlapping)
        result[:, classes] = solved
    return result.unflatten(0, (images, regions))


def _by_rounds(scores: Tensor, candidates: Tensor, pairs: Tensor) -> Tensor | None:
    """:func:`survivors`, for regions that overlap few others.

    In each round, undecided candidates that no undecided candidate of a higher rank overlaps
    survive, and the candidates that they overlap are dropped. Eight classes, a byte each, are
    processed as one int64.

    Args:
        scores, candidates: see :func:`survivors`; (N * R, C).
        pairs: int64 (P, 2), the regions that overlap, the lower index first.

    Returns:
        bool (N * R, C), as :func:`survivors`; None where more than ``MOST_ROUNDS`` are needed.
    """
    first, second = pairs.unbind(dim=1)
    first_wins = scores[first] >= scores[second]
    suppresses = _as_words(torch.cat([first_wins, ~first_wins]))
    winner, loser = torch.cat([first, second]), torch.cat([second, first])

    def spared(by: Tensor) -> Tensor:
        """Which regions none of ``by`` suppresses."""
        counts = torch.zeros_like(by).index_add_(0, loser, suppresses & by[winner])
        return (counts.view(torch.uint8) == 0).view(torch.int64)

    undecided = _as_words(candidates)
    result = torch.zeros_like(undecided)
    for _ in range(MOST_ROUNDS):
        free = undecided & spared(undecided)
        result |= free
        undecided = undecided & ~free & spared(free)
        if not undecided.any():
            return result.view(torch.bool)[:, : candidates.shape[1]]
    return None


def _as_words(flags: Tensor) -> Tensor:
    """Bool (N, C) as int64 (N, ceil(C / 8)): a byte for each flag, padded with zeros."""
    return torch.nn.functional.pad(flags, (0, -flags.shape[1] % 8)).view(torch.int64)


def _by_ranks(scores: Tensor, candidates: Tensor, overlapping: Tensor) -> Tensor:
    """:func:`survivors`, for any number of overlaps, in one step for each candidate of a class.

    A step takes the next rank of all classes of all images. For each class of an image, a bit field
    holds which regions are suppressed.

    Args:
        scores, candidates: see :func:`survivors`; (N * R, C).
        overlapping: see :func:`survivors`.

    Returns:
        bool (N * R, C), as :func:`survivors`.
    """
    images, regions, _ = overlapping.shape
    scores = scores.unflatten(0, (images, regions))
    candidates = candidates.unflatten(0, (images, regions))
    depth = int(candidates.sum(dim=1).max())
    by_rank = scores.where(candidates, -torch.inf).argsort(dim=1, descending=True, stable=True)
    by_rank = by_rank[:, :depth]  # all candidates, some classes' followed by other regions
    neighbours = _as_bits(overlapping.flatten(0, 1))
    suppressed = neighbours.new_zeros(images, scores.shape[2], neighbours.shape[1])
    first = regions * torch.arange(images, device=scores.device)[:, None]  # of each image
    steps = []
    for region in by_rank[..., None].unbind(dim=1):  # (N, C, 1)
        bit = suppressed.gather(2, region >> 6) >> (region & 63) & 1
        overlapped = neighbours[first + region.squeeze(2)]
        suppressed |= overlapped & (bit - 1)  # all bits if it survives, or none
        steps.append(bit.squeeze(2) == 0)
    survives = torch.stack(steps, dim=1)
    result = torch.zeros_like(candidates).scatter(1, by_rank, survives) & candidates
    return result.flatten(0, 1)


def _as_bits(rows: Tensor) -> Tensor:
    """Bool (N, R) as int64 (N, ceil(R / 64)): column r is bit r % 64 of word r // 64."""
    padded = torch.nn.functional.pad(rows, (0, -rows.shape[1] % 64))
    words = padded.view(len(rows), -1, 64).to(torch.int64)
    return (words << torch.arange(64, device=rows.device)).sum(dim=2)
