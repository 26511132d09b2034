"""Pooling over levels against pooling box by box."""

import naive
import torch
import torchvision
from detectron2.structures import Boxes

from vmb_d2.modeling import InclusiveROIPooler

SCALES = (1 / 4, 1 / 8, 1 / 16, 1 / 32)


def pyramid(images, generator):
    return [torch.randn(images, 6, 512 // s, 512 // s, generator=generator) for s in (4, 8, 16, 32)]


def test_every_box_is_pooled_from_its_level():
    generator = torch.Generator().manual_seed(0)
    features = pyramid(2, generator)
    corners = torch.rand(40, 2, generator=generator) * 200
    sides = torch.exp(torch.rand(40, 2, generator=generator) * 6)
    boxes = torch.cat([corners, (corners + sides).clamp(max=511)], dim=1)
    boxes[::10] = torch.tensor([3.0, 5.0, 500.0, 480.0])  # large enough for the last level
    pooled = InclusiveROIPooler(7, SCALES, 2)(features, [Boxes(boxes[:25]), Boxes(boxes[25:])])
    levels = set()
    for i, box in enumerate(boxes):
        level = naive.fpn_level(box.tolist()) - 2
        levels.add(level)
        image = features[level][i // 25 : i // 25 + 1]
        expected = torchvision.ops.roi_align(
            image, [box[None]], 7, spatial_scale=SCALES[level], sampling_ratio=2, aligned=False
        )
        assert torch.allclose(pooled[i : i + 1], expected, atol=1e-6)
    assert levels == {0, 1, 2, 3}


def test_no_boxes():
    features = pyramid(1, torch.Generator().manual_seed(0))
    pooled = InclusiveROIPooler(7, SCALES, 2)(features, [Boxes(torch.zeros(0, 4))])
    assert pooled.shape == (0, 6, 7, 7)
