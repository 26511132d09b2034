"""A batch of images as the network gets it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from detectron2.structures import ImageList
from torch import Tensor


class NetworkBatch(ImageList):
    """Padded images that also know their scales.

    Args:
        tensor: (N, 3, H, W).
        image_sizes: (height, width) of each in network pixels, without padding.
        scales: network pixels per original pixel of each.
    """

    def __init__(self, tensor: Tensor, image_sizes: list[tuple[int, int]], scales: Sequence[float]):
        super().__init__(tensor, image_sizes)
        self.scales = list(scales)

    @torch.jit.unused
    def to(self, *args, **kwargs) -> NetworkBatch:
        """The same batch with its tensor moved or converted."""
        return NetworkBatch(self.tensor.to(*args, **kwargs), self.image_sizes, self.scales)
