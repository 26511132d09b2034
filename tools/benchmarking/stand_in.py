"""A network that takes no time, to run for long what is around it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from detectron2.structures import Boxes, ImageList, Instances
from torch import Tensor, nn

from vmb_d2.config import VMBModel
from vmb_d2.extractor import RegionFeatureExtractor

REGIONS = 10


class StandInModel(nn.Module):
    """Gives every image the same few regions in the shapes of a model.

    Args:
        description: of the model.
    """

    def __init__(self, description: VMBModel):
        super().__init__()
        self.feature_names = description.feature_names
        self.num_classes = description.num_classes - 1
        self.feature_dimension = (
            description.mlp_head_dim if description.fpn else 8 * description.res2_out_channels
        )
        generator = torch.Generator().manual_seed(0)
        rows = torch.rand(REGIONS, self.feature_dimension, generator=generator)
        logits = torch.rand(REGIONS, self.num_classes + 1, generator=generator)
        corners = 40.0 * torch.arange(REGIONS)[:, None].expand(-1, 2)
        self.register_buffer("rows", rows)
        self.register_buffer("logits", logits)
        self.register_buffer("boxes", torch.cat([corners, corners + 30], dim=1))

    @property
    def device(self) -> torch.device:
        return self.rows.device

    def regions(
        self,
        images: ImageList,
        feature_names: Sequence[str],
        boxes: Sequence[Tensor] | None = None,
    ) -> list[Instances]:
        """See :meth:`vmb_d2.modeling.VMBRCNN.regions`; ``boxes`` are not looked at."""
        features = dict.fromkeys(feature_names, self.rows)
        return [
            Instances(size, proposal_boxes=Boxes(self.boxes), class_logits=self.logits, **features)
            for size in images.image_sizes
        ]


def stand_in_extractor(description: VMBModel) -> RegionFeatureExtractor:
    """An extractor on the CPU whose network is a stand-in."""
    return RegionFeatureExtractor(StandInModel(description).eval(), description=description)
