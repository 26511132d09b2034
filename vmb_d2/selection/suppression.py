"""Non-maximum suppression in many classes, all of which have the same boxes.

Within a class, regions rank by falling score, equal scores in the order given. A region survives
if no survivor of a higher rank overlaps it too much. The regions are those of several images; none
has to do with any of another image. How often a GPU is waited for doesn't depend on their number.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Rounds take less time than ranks where no region overlaps more than so many others (the sums of
# bytes in _by_rounds would allow for 255) and few rounds are needed; usually 3 to 8 are.
MOST_NEIGHBOURS = 32
MOST_ROUNDS = 32

# Comparisons of two scores that a round does at a time, for each image: a bound on memory, some 30
# bytes for each comparison.
COMPARISONS = 2**20


def survivors(scores: Tensor, candidates: Tensor, overlapping: Tensor) -> Tensor:
    """Which candidates survive, class by class.

    Where regions overlap few others, the time grows with the pairs of regions that overlap, times
    C; else, and at the worst, with N * R * R * C / 64. Memory beyond ``scores`` is some 50 bytes
    for each of its numbers at the worst.

    Args:
        scores: (N, R, C), of the regions of N images.
        candidates: bool (N, R, C), which regions take part in which classes.
        overlapping: bool (N, R, R), symmetric, its diagonals False: which two regions of an image
            overlap so much that only one of them can survive.

    Returns:
        bool (N, R, C), False where ``candidates`` is.
    """
    images, regions, _ = scores.shape
    contested = (candidates.sum(dim=1).amax(dim=0) > 1).nonzero().squeeze(1)
    if not len(contested):
        return candidates
    pairs = overlapping.triu().nonzero()
    pairs = pairs[:, 1:] + regions * pairs[:, :1]  # of regions counted through all images
    sparse = int(overlapping.sum(dim=2).max()) <= MOST_NEIGHBOURS
    at_once = images * COMPARISONS // max(len(pairs), 1) if sparse else len(contested)
    of_all = scores.flatten(0, 1), candidates.flatten(0, 1)
    result = of_all[1].clone()
    for classes in contested.split(max(at_once, 1)):
        problem = [values[:, classes] for values in of_all]
        solved = _by_rounds(*problem, pairs) if sparse else None
        if solved is None:
            solved = _by_ranks(*problem, overlapping)
        result[:, classes] = solved
    return result.unflatten(0, (images, regions))


def _by_rounds(scores: Tensor, candidates: Tensor, pairs: Tensor) -> Tensor | None:
    """:func:`survivors` in a few rounds, where few regions overlap.

    In each round the candidates that no undecided one of a higher rank overlaps survive, and those
    that they overlap go. Booleans are bytes here, eight classes in an int64 word.

    Args:
        scores, candidates: see :func:`survivors`; (N * R, C).
        pairs: int64 (P, 2), the regions that overlap, the lower index first.

    Returns:
        bool (N * R, C), as :func:`survivors`; None where ``MOST_ROUNDS`` are too few.
    """
    first, second = pairs.unbind(dim=1)
    first_wins = scores[first] >= scores[second]
    suppresses = _as_words(torch.cat([first_wins, ~first_wins]))  # if the winner is a candidate
    winner, loser = torch.cat([first, second]), torch.cat([second, first])

    def spared(by: Tensor) -> Tensor:
        """Which candidates none of ``by`` suppresses."""
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
    """Bool (N, C) as int64 (N, ceil(C / 8)): a byte each, padded with zeros."""
    return torch.nn.functional.pad(flags, (0, -flags.shape[1] % 8)).view(torch.int64)


def _by_ranks(scores: Tensor, candidates: Tensor, overlapping: Tensor) -> Tensor:
    """:func:`survivors` in as many steps as a class has candidates, however they overlap.

    Rank by rank, all classes of all images together. A class of an image has a bit for each region
    that is suppressed.

    Args:
        scores, candidates: see :func:`survivors`; (N * R, C).
        overlapping: see there; (N, R, R).

    Returns:
        bool (N * R, C), as :func:`survivors`.
    """
    images, regions, _ = overlapping.shape
    scores, candidates = (of.unflatten(0, (images, regions)) for of in (scores, candidates))
    depth = int(candidates.sum(dim=1).max())
    by_rank = scores.where(candidates, -torch.inf).argsort(dim=1, descending=True, stable=True)
    by_rank = by_rank[:, :depth]  # only candidates, and after them regions that suppress none
    neighbours = _as_bits(overlapping.flatten(0, 1))
    suppressed = neighbours.new_zeros(images, scores.shape[2], neighbours.shape[1])
    first = regions * torch.arange(images, device=scores.device)[:, None]  # of each image
    survives = []
    for region in by_rank[..., None].unbind(dim=1):  # (N, C, 1): the one with the next lower score
        bit = suppressed.gather(2, region >> 6) >> (region & 63) & 1
        overlapped = neighbours[first + region.squeeze(2)]
        suppressed |= overlapped & (bit - 1)  # all bits if it survives, or none
        survives.append(bit.squeeze(2) == 0)
    survives = torch.stack(survives, dim=1)
    result = torch.zeros_like(candidates).scatter(1, by_rank, survives) & candidates
    return result.flatten(0, 1)


def _as_bits(rows: Tensor) -> Tensor:
    """Bool (N, R) as int64 (N, ceil(R / 64)): column r is bit r % 64 of word r // 64."""
    padded = torch.nn.functional.pad(rows, (0, -rows.shape[1] % 64))
    words = padded.view(len(rows), -1, 64).to(torch.int64)
    return (words << torch.arange(64, device=rows.device)).sum(dim=2)
