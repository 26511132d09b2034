"""A GPU that isn't there: its memory, as PyTorch counts it, and an extractor that takes of it."""

import torch
from fakes import FakeExtractor

from vmb_d2.data.preprocessing import LONG_SIDE, SHORT_SIDE, padded_size

LARGEST = padded_size(SHORT_SIDE, LONG_SIDE)


class FakeGPU:
    """Memory of ``total`` bytes, and what is in it.

    Attributes:
        others: what is taken beside PyTorch's.
        allocated, reserved, peak: PyTorch's own, in bytes.
        index: the GPU's; asked about another one, the functions fail.
    """

    def __init__(self, total, weights=0, others=0, index=0):
        self.total, self.others, self.index = total, others, index
        self.allocated = self.reserved = self.peak = weights

    def install(self, monkeypatch):
        """In the place of torch.cuda's functions."""
        for name, function in {
            "mem_get_info": lambda: (self.total - self.others - self.reserved, self.total),
            "memory_allocated": lambda: self.allocated,
            "memory_reserved": lambda: self.reserved,
            "max_memory_allocated": lambda: self.peak,
            "reset_peak_memory_stats": self._reset,
            "get_device_name": lambda: "none",
        }.items():
            monkeypatch.setattr(torch.cuda, name, self._checked(function))
        monkeypatch.setattr(torch.cuda, "empty_cache", self._empty_cache)
        return self

    def take(self, count):
        """Allocate bytes. Raises torch.OutOfMemoryError."""
        if self.allocated + count > self.total - self.others:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate much")
        self.allocated += count
        self.reserved = max(self.reserved, self.allocated)
        self.peak = max(self.peak, self.allocated)

    def give(self, count):
        self.allocated -= count

    def _checked(self, function):
        def call(device):
            assert torch.device(device).index == self.index
            return function()

        return call

    def _reset(self):
        self.peak = self.allocated

    def _empty_cache(self):
        self.reserved = self.allocated


class GPUExtractor(FakeExtractor):
    """Takes what steps take, one after the other.

    Args:
        gpu: of this GPU.
        steps: (fixed, each) bytes of each step, the latter for an image of the largest size.
        stays: bytes that the first batch takes for ever, of PyTorch's and again beside it.

    Attributes:
        asked: (images, boxes of each; None for proposals) of each batch.
        chosen: images of each batch whose regions were chosen.
    """

    def __init__(self, gpu, steps, stays=0, **values):
        super().__init__(**values)
        self.model.device = torch.device("cuda", gpu.index)
        self.gpu, self.steps, self.stays = gpu, steps, stays
        self.asked, self.chosen = [], []

    def extract_batch(self, images, size, boxes=None):
        self.read_out(self.network(self.to_network(images, size), boxes), images, boxes)
        return super().extract_batch(images, size, boxes)

    def to_network(self, images, size):
        return len(images), size[0] * size[1] / (LARGEST[0] * LARGEST[1])

    def network(self, batch, boxes=None):
        count, share = batch
        self.asked.append((count, None if boxes is None else [len(b) for b in boxes]))
        self.gpu.take(self.stays)
        self.gpu.others, self.stays = self.gpu.others + self.stays, 0
        for fixed, each in self.steps:
            size = fixed + round(each * count * share)
            self.gpu.take(size)
            self.gpu.give(size)
        return [None] * count

    def read_out(self, regions, images, boxes=None):
        assert len(regions) == len(images)
        if boxes is None:
            self.chosen.append(len(regions))
