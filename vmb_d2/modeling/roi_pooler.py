"""RoI pooling over an FPN with VMB's assignment of boxes to levels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from detectron2.modeling.poolers import convert_boxes_to_pooler_format
from detectron2.structures import Boxes
from torch import Tensor, nn

from ..structures.box_geometry import assign_fpn_levels
from .roi_align import BagROIAlign


class InclusiveROIPooler(nn.Module):
    """ROIAlign of the first version, each box on its FPN level by its inclusive area.

    Takes the place of Detectron2's ``ROIPooler``, whose level assignment can't be exchanged.

    Args:
        output_size: side of the pooled map.
        scales: of the feature maps to the image, each half of the one before, e.g. 1/4 .. 1/32.
        sampling_ratio: samples a bin side; 0 for as many as the box is large.
    """

    def __init__(self, output_size: int, scales: Sequence[float], sampling_ratio: int):
        super().__init__()
        self.output_size = output_size
        self.min_level = round(-math.log2(scales[0]))
        self.level_poolers = nn.ModuleList(
            BagROIAlign((output_size, output_size), scale, sampling_ratio, aligned=False)
            for scale in scales
        )

    def forward(self, features: list[Tensor], boxes: list[Boxes]) -> Tensor:
        """Pool.

        Args:
            features: a map (N, C, H_l, W_l) for each scale.
            boxes: for each of the N images, inclusive boxes in network pixels.

        Returns:
            (R, C, output_size, output_size), R boxes of all images in order.
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
