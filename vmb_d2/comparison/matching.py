"""Which box of one image's regions is which of the other's: by overlap, one to one."""

from __future__ import annotations

import numpy as np
import torch
import torchvision

from ..structures.box_geometry import to_exclusive


def overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of every pair of inclusive boxes, float64 (R, S); 0 where undefined.

    ``a`` (R, 4) and ``b`` (S, 4) are float64, x1, y1, x2, y2.
    """
    exclusive = [to_exclusive(torch.from_numpy(np.ascontiguousarray(x))) for x in (a, b)]
    return np.nan_to_num(torchvision.ops.box_iou(*exclusive).numpy(), nan=0.0, posinf=0.0)


def greedy_pairs(iou: np.ndarray, least: float) -> tuple[np.ndarray, np.ndarray]:
    """Pair rows and columns one to one, those that overlap most first.

    Of equal overlaps the one of the lowest row comes first, then of the lowest column. Pairs that
    overlap less than ``least`` are left out; with a higher ``least``, the others stay the same.

    Args:
        iou: (R, S), at least 0.
        least: above 0.

    Returns:
        Rows and columns of the pairs, int64, by rising row.
    """
    iou = np.where(iou >= least, iou, 0.0)
    partner = np.full(len(iou), -1)
    while iou.any():
        # A pair that is the best of its row and of its column comes before all that it excludes.
        columns, rows = iou.argmax(axis=1), iou.argmax(axis=0)
        mutual = np.flatnonzero((rows[columns] == np.arange(len(iou))) & iou.any(axis=1))
        partner[mutual] = columns[mutual]
        iou[mutual] = 0
        iou[:, columns[mutual]] = 0
    matched = np.flatnonzero(partner >= 0)
    return matched, partner[matched]
