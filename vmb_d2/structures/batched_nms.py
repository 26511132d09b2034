"""Greedy non-maximum suppression of many sets of boxes, such as the levels of a batch's images.

Within a set, a box is dropped if a box before it that is kept overlaps it too much. Both forms
round an overlap as torchvision's ``nms`` on the CPU does, so they keep the same boxes.
"""

from __future__ import annotations

import torch
import torchvision
from torch import Tensor
from torch.nn.functional import pad

ROUNDS = 16  # between two looks at whether all is decided
_PAIRS_AT_ONCE = 2**23  # of which each takes about 40 bytes


def kept_in_turn(boxes: Tensor, candidates: Tensor, overlap: float) -> Tensor:
    """Which boxes are kept, found set by set with torchvision's ``nms``.

    Args:
        boxes: float32 (B, K, 4) of B sets, exclusive, within each in the order of their rank.
        candidates: bool (B, K), which boxes take part.
        overlap: intersection over union above which one of two boxes is dropped; a number that
            float32 has.

    Returns:
        bool (B, K), False where ``candidates`` is.
    """
    kept = torch.zeros_like(candidates)
    ranks = torch.arange(boxes.shape[1], 0, -1, device=boxes.device).float()
    for own, own_boxes, result in zip(candidates, boxes, kept, strict=True):
        rows = own.nonzero().squeeze(1)
        result[rows[torchvision.ops.nms(own_boxes[rows], ranks[: len(rows)], overlap)]] = True
    return kept


def kept_at_once(boxes: Tensor, candidates: Tensor, overlap: float) -> Tensor:
    """Which boxes are kept, found in all sets at once.

    At first all candidates count as kept. A round drops those that overlap one before them that
    counts as kept, and takes the others back. It settles the first box that isn't settled yet, and
    as a rule many more, so the result stays as it is after as many rounds as the longest chain of
    boxes is long of which each decides on the next. The host waits for a GPU once in
    :data:`ROUNDS` rounds, whatever the number of sets. Memory for B * K * K / 8 bytes is needed.

    The arguments and the result are those of :func:`kept_in_turn`.
    """
    earlier = _overlapping_earlier(boxes, overlap)
    kept = candidates
    while True:
        for _ in range(ROUNDS):
            before = kept
            dropped = (earlier & as_bits(kept)[:, None]).any(dim=2)
            kept = candidates & ~dropped
        if torch.equal(kept, before):
            return kept


def as_bits(flags: Tensor) -> Tensor:
    """Bool (..., R) as int64 (..., ceil(R / 64)): flag r is bit r % 64 of word r // 64."""
    padded = pad(flags, (0, -flags.shape[-1] % 64))
    words = padded.unflatten(-1, (-1, 64)).to(torch.int64)
    return (words << torch.arange(64, device=flags.device)).sum(dim=-1)


def _overlapping_earlier(boxes: Tensor, overlap: float) -> Tensor:
    """As bits, int64 (B, K, ceil(K / 64)): which of the boxes before a box overlap it too much."""
    sets, count, _ = boxes.shape
    rows = max(1, _PAIRS_AT_ONCE // max(1, sets * count))
    result = boxes.new_zeros(sets, count, -(-count // 64), dtype=torch.int64)
    for begin in range(0, count, rows):
        end = min(begin + rows, count)
        pairs = intersection_over_union(boxes[:, begin:end], boxes[:, :end]) > overlap
        bits = as_bits(pairs.tril_(begin - 1))
        result[:, begin:end, : bits.shape[2]] = bits
    return result


def intersection_over_union(a: Tensor, b: Tensor) -> Tensor:
    """Of exclusive boxes (B, R, 4) and (B, S, 4), float32 (B, R, S); NaN where both are empty.

    Each operation is rounded by itself, in torchvision's order.
    """
    x1, y1, x2, y2 = a[:, :, None].unbind(dim=3)
    left, top, right, bottom = b[:, None].unbind(dim=3)
    shared = torch.minimum(x2, right).sub_(torch.maximum(x1, left)).clamp_(min=0)
    heights = torch.minimum(y2, bottom).sub_(torch.maximum(y1, top)).clamp_(min=0)
    shared.mul_(heights)
    del heights
    areas = (x2 - x1) * (y2 - y1)
    return shared / (areas + (right - left) * (bottom - top)).sub_(shared)
