"""Pooling over levels against pooling box by box."""

import threading

import naive
import pytest
import torch
import torchvision
from detectron2.layers import ROIAlign
from detectron2.structures import Boxes

from vmb_d2.modeling import InclusiveROIPooler
from vmb_d2.modeling.roi_pooler import ThreadedROIAlign

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


@pytest.fixture
def threads():
    """Sets the number of PyTorch's threads, for the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("count", [0, 1, 2, 7])
@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_threads_give_what_one_gives(threads, monkeypatch, count, inference, sampling_ratio):
    def align(pooler, input, rois):
        seen.add(
            (threading.get_ident(), torch.is_grad_enabled(), torch.is_inference_mode_enabled())
        )
        return forward(pooler, input, rois)

    seen, forward = set(), ROIAlign.forward
    plain = ROIAlign((3, 2), 0.25, sampling_ratio, aligned=False)
    pooler = ThreadedROIAlign.like(plain)
    generator = torch.Generator().manual_seed(count)
    corners = 60 * torch.rand(count, 2, generator=generator)
    sides = 40 * torch.rand(count, 2, generator=generator)
    images = torch.randint(2, (count, 1), generator=generator).float()
    rois = torch.cat([images, corners, corners + sides], dim=1)
    with torch.inference_mode(inference):
        maps = torch.rand(2, 5, 24, 25, generator=generator)
        expected = plain(maps, rois)
        monkeypatch.setattr(ROIAlign, "forward", align)
        for number in (1, 2, 3):
            threads(number)
            assert torch.equal(pooler(maps, rois), expected)
    own = threading.get_ident()
    assert {who[1:] for who in seen} == {(not inference, inference)}
    assert any(who[0] != own for who in seen) == (count > 1)
