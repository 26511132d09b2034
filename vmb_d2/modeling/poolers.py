"""RoI pooling with VMB's assignment of boxes to FPN levels, and a faster ROIAlign for the CPU."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from detectron2.layers import ROIAlign
from detectron2.modeling.poolers import convert_boxes_to_pooler_format
from detectron2.structures import Boxes
from torch import Tensor, nn
from torch.nn import functional as F

from ..structures.box_geometry import assign_fpn_levels


class InclusiveROIPooler(nn.Module):
    """ROIAlign of boxes on the FPN level of their inclusive area, without the half-pixel offset.

    Used instead of Detectron2's ``ROIPooler``, whose level assignment can't be replaced.

    Args:
        output_size: side of the pooled map.
        scales: of the feature maps relative to the image, each half of the one before, such as
            1/4 to 1/32.
        sampling_ratio: samples along each side of a bin; 0 for a number that grows with the box.
    """

    def __init__(self, output_size: int, scales: Sequence[float], sampling_ratio: int):
        super().__init__()
        self.output_size = output_size
        self.min_level = round(-math.log2(scales[0]))
        self.level_poolers = nn.ModuleList(
            BagROIAlign((output_size, output_size), scale, sampling_ratio) for scale in scales
        )

    def forward(self, features: list[Tensor], boxes: list[Boxes]) -> Tensor:
        """Pool regions.

        Args:
            features: a map (N, C, H_l, W_l) of each scale.
            boxes: for each of the N images, inclusive boxes in network pixels.

        Returns:
            (R, C, output_size, output_size), of the R boxes of all images in order.
        """
        rois = convert_boxes_to_pooler_format(boxes)
        max_level = self.min_level + len(self.level_poolers) - 1
        levels = assign_fpn_levels(rois[:, 1:], self.min_level, max_level)
        shape = (len(rois), features[0].shape[1], self.output_size, self.output_size)
        pooled = features[0].new_zeros(shape)
        for level, (pooler, feature) in enumerate(
            zip(self.level_poolers, features, strict=True), start=self.min_level
        ):
            on_level = torch.nonzero(levels == level).squeeze(1)
            pooled.index_copy_(0, on_level, pooler(feature, rois[on_level]))
        return pooled


class BagROIAlign(ROIAlign):
    """ROIAlign, not aligned, computed on the CPU as weighted sums of pixels by ``embedding_bag``.

    It is many times as fast as torchvision's kernel, which is used on other devices. Samples and
    weights are the same, but are added in another order: results differ by rounding.
    """

    def __init__(self, output_size: tuple[int, int], spatial_scale: float, sampling_ratio: int):
        super().__init__(output_size, spatial_scale, sampling_ratio, aligned=False)

    def forward(self, input: Tensor, rois: Tensor, step: int = 1) -> Tensor:
        """See :meth:`detectron2.layers.ROIAlign.forward`. The memory format is kept.

        ``step``: compute every step-th row and column of bins only.
        """
        if input.device.type != "cpu":
            return super().forward(input, rois)[..., ::step, ::step]
        _, channels, height, width = input.shape
        rows, columns = (len(range(0, bins, step)) for bins in self.output_size)
        if not len(rois):  # don't convert the memory format for nothing
            return input.new_zeros(0, channels, rows, columns)
        rows_of_pixels = input.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1)
        pixels = rows_of_pixels.reshape(-1, channels)
        first_pixels = rois[:, 0].long() * (height * width)  # index of each region's image
        starts, bins, samples = self._bins(rois[:, 1:])
        pooled = pixels.new_zeros(len(rois), rows, columns, channels)
        for each in samples.unique(dim=0):
            across, down = each.tolist()
            regions = (samples == each).all(dim=1).nonzero().squeeze(1)
            (left, top), (bin_width, bin_height) = starts[regions].T, bins[regions].T
            x, x_weights = _taps(left, bin_width, columns, step, across, width)
            y, y_weights = _taps(top, bin_height, rows, step, down, height)
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
        """Start of the first bin, side lengths of a bin, and samples along each side.

        Args:
            boxes: (R, 4), in network pixels.

        Returns:
            float32 (R, 2) twice, in pixels of the map, and int64 (R, 2); x before y.
        """
        starts, ends = (boxes * self.spatial_scale).split(2, dim=1)
        sides = (ends - starts).clamp(min=1)
        bins = sides / sides.new_tensor(self.output_size[::-1])
        if self.sampling_ratio > 0:
            samples = torch.full_like(bins, self.sampling_ratio)
        else:
            samples = bins.ceil()
        return starts, bins, samples.long()


def _taps(
    start: Tensor, bin: Tensor, bins: int, step: int, samples: int, size: int
) -> tuple[Tensor, Tensor]:
    """Along one axis, the pixels that each bin reads, and their weights.

    A sample between two pixels is interpolated. A sample up to one pixel before the first pixel,
    or up to ``size``, reads the nearest pixel; samples farther outside have weight 0.

    Args:
        start, bin: float32 (R,), start of the first bin and length of a bin.
        bins: number of bins, each ``step``-th of which there are.
        samples: number of samples in each bin.
        size: number of pixels of the map.

    Returns:
        int64 and float32 (R, bins, 2 samples).
    """
    numbers = step * torch.arange(bins, device=bin.device)[:, None]
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
