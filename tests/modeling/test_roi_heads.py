"""The C4 models' head takes regions through res5 in pieces: less memory, the same features."""

import pytest
import support
import torch
from detectron2.structures import Boxes

COUNTS = (30, 0, 17)  # regions of the images


@pytest.fixture
def heads():
    return support.tiny_model("tiny_x152_c4").roi_heads


def some_maps(heads):
    generator = torch.Generator().manual_seed(3)
    channels = heads.res5[0].conv1.in_channels
    maps = torch.rand(len(COUNTS), channels, 20, 30, generator=generator)
    boxes = []
    for count in COUNTS:
        corners = torch.rand(count, 2, generator=generator) * 200
        sides = torch.rand(count, 2, generator=generator) * 150
        boxes.append(Boxes(torch.cat([corners, corners + sides], dim=1)))
    return {heads.in_features[0]: maps}, boxes


@pytest.mark.parametrize("at_once", [1, 7, 1000])
@torch.no_grad()
def test_pieces_give_what_all_at_once_gives(heads, monkeypatch, at_once):
    features, boxes = some_maps(heads)
    maps = heads._shared_roi_transform(list(features.values()), boxes)
    expected = torch.stack([m.double().mean(dim=(1, 2)) for m in maps])
    monkeypatch.setattr(heads, "regions_at_once", at_once)
    found = heads.region_features(features, boxes)["pooled"]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)
