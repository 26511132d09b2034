"""ROIAlign on a CPU as weighted sums of pixels, many times as fast as a loop over channels."""

from __future__ import annotations

import torch
from detectron2.layers import ROIAlign
from torch import Tensor
from torch.nn import functional as F


class BagROIAlign(ROIAlign):
    """ROIAlign that on a CPU gives each bin as an embedding bag, its pixels being the embeddings.

    The samples and weights are those of torchvision's kernel, which is taken on other devices. They
    are added up in another order: the results differ by rounding.
    """

    @classmethod
    def like(cls, pooler: ROIAlign) -> BagROIAlign:
        """With the settings of another."""
        return cls(pooler.output_size, pooler.spatial_scale, pooler.sampling_ratio, pooler.aligned)

    def forward(self, input: Tensor, rois: Tensor) -> Tensor:
        """See :meth:`detectron2.layers.ROIAlign.forward`. The result has ``input``'s layout."""
        if input.device.type != "cpu":
            return super().forward(input, rois)
        _, channels, height, width = input.shape
        if not len(rois):  # for which no map has to be brought into another layout
            return input.new_zeros(0, channels, *self.output_size)
        rows_of_pixels = input.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1)
        pixels = rows_of_pixels.reshape(-1, channels)
        first_pixels = rois[:, 0].long() * (height * width)  # of the regions' images
        starts, bins, samples = self._bins(rois[:, 1:])
        rows, columns = self.output_size
        pooled = pixels.new_zeros(len(rois), rows, columns, channels)
        for each in samples.unique(dim=0):
            across, down = each.tolist()
            if across < 1 or down < 1:  # a region that ends before it begins
                continue
            regions = (samples == each).all(dim=1).nonzero().squeeze(1)
            (left, top), (bin_width, bin_height) = starts[regions].T, bins[regions].T
            x, x_weights = _taps(left, bin_width, columns, across, width)
            y, y_weights = _taps(top, bin_height, rows, down, height)
            y = y * width + first_pixels[regions, None, None]
            indices = y[:, :, None, :, None] + x[:, None, :, None, :]
            weights = y_weights[:, :, None, :, None] * x_weights[:, None, :, None, :]
            sums = F.embedding_bag(
                indices.flatten(0, 2).flatten(1),
                pixels,
                per_sample_weights=weights.flatten(0, 2).flatten(1),
                mode="sum",
            )
            pooled[regions] = sums.view(-1, rows, columns, channels)
        is_channels_last = input.is_contiguous(memory_format=torch.channels_last)
        pooled = pooled.permute(0, 3, 1, 2)
        return pooled if is_channels_last else pooled.contiguous()

    def _bins(self, boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Where the first bin begins, a bin's sides and how many samples they have.

        Args:
            boxes: (R, 4), in the pixels that ``spatial_scale`` turns into those of the map.

        Returns:
            float32 (R, 2) twice, in pixels of the map, and int64 (R, 2); x before y.
        """
        starts, ends = (boxes * self.spatial_scale - (0.5 if self.aligned else 0.0)).split(2, dim=1)
        sides = ends - starts if self.aligned else (ends - starts).clamp(min=1)
        bins = sides / sides.new_tensor(self.output_size[::-1])
        if self.sampling_ratio > 0:
            samples = torch.full_like(bins, self.sampling_ratio)
        else:
            samples = bins.ceil()
        return starts, bins, samples.long()


def _taps(start: Tensor, bin: Tensor, bins: int, samples: int, size: int) -> tuple[Tensor, Tensor]:
    """Along one axis, the pixels that each bin takes and their weights.

    A sample between two pixels takes both, in proportion. One beyond the first or last pixel takes
    that, and none if it is more than a pixel before the first, or beyond ``size``.

    Args:
        start, bin: (R,), where the first bin begins and how long a bin is.
        bins: how many there are.
        samples: of each bin.
        size: of the map.

    Returns:
        int64 and float32 (R, bins, 2 samples).
    """
    numbers = torch.arange(bins, device=bin.device)[:, None]
    within = (torch.arange(samples, device=bin.device) + 0.5)[None]
    start, bin = start[:, None, None], bin[:, None, None]
    position = start + numbers * bin + within * bin / samples
    inside = (position >= -1) & (position <= size)
    position = position.clamp(0, size - 1)
    low = position.floor()
    share = position - low
    weights = torch.stack([1 - share, share], dim=3) * inside[..., None] / samples
    pixels = torch.stack([low, (low + 1).clamp(max=size - 1)], dim=3).long()
    return pixels.flatten(2), weights.flatten(2)
