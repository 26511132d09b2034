"""What images take of a GPU's memory, found out by running the network."""

from __future__ import annotations

import gc
from collections.abc import Callable

import torch

from ..data.preprocessing import LONG_SIDE, SHORT_SIDE, NetworkImage
from ..extractor import RegionFeatureExtractor
from ..utils.devices import is_out_of_memory
from .auto_batch_size import MOST, Choice, choose_batch_size


def batch_size_for(
    extractor: RegionFeatureExtractor, images: int, given_boxes: int | None = None
) -> Choice:
    """How many images of the largest size fit into the memory that is free now, at a time.

    On the CPU that is not asked: it is 1.

    Args:
        extractor: whose network, precision and device it is about.
        images: how many there are to extract; there is no use in a larger batch.
        given_boxes: the most boxes that an image has; None for the network's proposals.
    """
    device = extractor.model.device
    if device.type != "cuda":
        return Choice(1)
    memory, run = GPUMemory(device), largest_images(extractor, given_boxes)
    return choose_batch_size(
        lambda count: memory.needed(lambda: run(count)), memory.free, min(MOST, images)
    )


def largest_images(
    extractor: RegionFeatureExtractor, given_boxes: int | None = None
) -> Callable[[int], None]:
    """What extracts a number of made-up images of the largest size, with as many regions as can be.

    How many proposals there are depends on the image. So with proposals the images are extracted
    twice: as any others, and from boxes, as many as there can be proposals. All boxes are the whole
    image: they are pooled on one level of the FPN, and overlap as much as boxes can where regions
    are chosen.

    Arguments as for :func:`batch_size_for`.
    """
    # Of the mean colour, which is zero.
    image = NetworkImage(torch.zeros(3, SHORT_SIDE, LONG_SIDE), 1.0, LONG_SIDE, SHORT_SIDE)
    count = extractor.model.most_proposals if given_boxes is None else given_boxes
    boxes = torch.tensor([[0.0, 0.0, LONG_SIDE - 1, SHORT_SIDE - 1]]).expand(count, 4)

    @torch.inference_mode()
    def run(images: int) -> None:
        batch, boxes_of_each = [image] * images, [boxes] * images
        if given_boxes is not None:
            extractor.extract_batch(batch, image.padded_size, boxes_of_each)
            return
        extractor.extract_batch(batch, image.padded_size)
        on_device = extractor.to_network(batch, image.padded_size)
        extractor.read_out(extractor.network(on_device, boxes_of_each), batch)

    return run


class GPUMemory:
    """The memory of a GPU, as far as this process can have it.

    Args:
        device: the GPU.
    """

    def __init__(self, device: torch.device):
        self._index = device.index  # None for the present one

    def free(self) -> int:
        """Bytes that PyTorch can still give away: its own that nothing is in, and the GPU's."""
        free, _ = torch.cuda.mem_get_info(self._index)
        held = torch.cuda.memory_reserved(self._index)
        return free + held - torch.cuda.memory_allocated(self._index)

    def needed(self, run: Callable[[], None]) -> int | None:
        """The most bytes that ``run`` takes beside what stays; None where they aren't there.

        Afterwards all that it took is given back to the GPU, and PyTorch's peak begins anew. What
        stays is what was there before and, of the first run, the libraries' workspaces.
        """
        torch.cuda.reset_peak_memory_stats(self._index)
        fits = True
        try:
            run()
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            fits = False
        peak = torch.cuda.max_memory_allocated(self._index)
        # Outside of the handler, since the error's traceback holds on to the tensors.
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self._index)
        return peak - torch.cuda.memory_allocated(self._index) if fits else None
