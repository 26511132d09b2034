"""ROIAlign against torchvision's kernel, and pooling over levels against pooling box by box."""

import naive
import pytest
import torch
import torchvision
from detectron2.layers import ROIAlign
from detectron2.structures import Boxes
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vmb_d2.modeling.poolers import BagROIAlign, InclusiveROIPooler

LAYOUTS = torch.contiguous_format, torch.channels_last


def some_maps(generator, size=(13, 17), memory_format=torch.contiguous_format):
    maps = torch.randn(2, 5, *size, generator=generator)
    return maps.contiguous(memory_format=memory_format)


def some_rois(generator, count, smallest=-30.0, largest=100.0):
    """Regions inside, across the edges and outside of maps at a quarter of the resolution."""
    images = torch.randint(2, (count, 1), generator=generator).float()
    corners = smallest + (largest - smallest) * torch.rand(count, 2, generator=generator)
    sides = torch.exp(5 * torch.rand(count, 2, generator=generator)) - 1
    return torch.cat([images, corners, corners + sides], dim=1)


@given(
    seed=st.integers(0, 10**6),
    count=st.integers(0, 12),
    output_size=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    sampling_ratio=st.integers(0, 3),
    memory_format=st.sampled_from(LAYOUTS),
)
@settings(max_examples=200, deadline=None)
@example(0, 0, (7, 7), (13, 17), 2, torch.contiguous_format)
@example(0, 0, (7, 7), (13, 17), 0, torch.channels_last)
def test_the_same_as_torchvisions(seed, count, output_size, size, sampling_ratio, memory_format):
    plain = ROIAlign(output_size, 0.25, sampling_ratio, aligned=False)
    generator = torch.Generator().manual_seed(seed)
    maps = some_maps(generator, size, memory_format)
    rois = some_rois(generator, count)
    found = BagROIAlign(output_size, 0.25, sampling_ratio)(maps, rois)
    torch.testing.assert_close(found, plain(maps, rois), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_samples_on_edges_and_regions_of_no_size(sampling_ratio):
    """The map is 17 x 13; a sample up to one pixel before it, and up to 17 or 13, still counts."""
    edges = [-8.0, -6.0, -4.0, -2.0, 0.0, 2.0, 40.0, 44.0, 48.0, 52.0, 60.0, 64.0, 68.0, 72.0]
    starts = torch.tensor(edges)
    rois = torch.tensor(
        [
            [0.0, x, y, x + side, y + side]
            for x in starts
            for y in starts
            for side in (-20, 0, 4, 8, 40)  # -20: it ends before it begins
        ]
    )
    plain = ROIAlign((2, 2), 0.25, sampling_ratio, aligned=False)
    maps = some_maps(torch.Generator().manual_seed(1))
    expected = plain(maps, rois)
    found = BagROIAlign((2, 2), 0.25, sampling_ratio)(maps, rois)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    nothing = (expected == 0).flatten(1).all(dim=1)
    assert 0 < nothing.sum() < len(rois)
    assert torch.equal((found == 0).flatten(1).all(dim=1), nothing)


@pytest.mark.parametrize("memory_format", LAYOUTS)
@pytest.mark.parametrize("inference", [False, True])
def test_layout_and_modes(memory_format, inference):
    generator = torch.Generator().manual_seed(3)
    rois = some_rois(generator, 6)
    with torch.inference_mode(inference):
        maps = some_maps(generator, memory_format=memory_format)
        found = BagROIAlign((3, 2), 0.25, 2)(maps, rois)
    assert found.is_contiguous(memory_format=memory_format)
    assert found.is_inference() == inference


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
    none = InclusiveROIPooler(7, SCALES, 2)(features, [Boxes(boxes[:0])] * 2)
    assert none.shape == (0, 6, 7, 7)
