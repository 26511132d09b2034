"""From the device to the host."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def to_host(arrays: Sequence[Sequence[Tensor]]) -> list[list[np.ndarray]]:
    """Arrays that are in pieces, such as one for each image, in the same pieces as NumPy's.

    From a GPU, each array comes in one copy, and all copies are waited for once. What is on the
    host already is not copied: there, a result and its tensor are the same memory.

    Args:
        arrays: the pieces of each array: (n_i, ...), all on one device.

    Returns:
        As ``arrays``. From a GPU, every piece has memory of its own.
    """
    coming = {
        number: torch.cat(list(pieces)).to("cpu", non_blocking=True)  # into pinned memory
        for number, pieces in enumerate(arrays)
        if any(piece.device.type != "cpu" for piece in pieces)
    }
    for device in {arrays[number][0].device for number in coming}:
        torch.cuda.current_stream(device).synchronize()
    result = []
    for number, pieces in enumerate(arrays):
        if number in coming:
            parts = coming[number].split([len(piece) for piece in pieces])
            # Copied once more, so that nobody holds on to pinned memory, nor to a whole batch.
            result.append([part.numpy().copy() for part in parts])
        else:
            result.append([piece.numpy() for piece in pieces])
    return result
