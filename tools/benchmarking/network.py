"""The network by itself: how long it takes, and how much it computes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from vmb_d2.data.batching import bucketed_batches
from vmb_d2.data.preprocessing import load
from vmb_d2.extractor import RegionFeatureExtractor
from vmb_d2.modeling.inference_form import can_fuse
from vmb_d2.structures.input_image import InputImage

from .stages import Laps, Write, clock, pass_through


def network_seconds(
    extractor: RegionFeatureExtractor, images: Sequence[InputImage], batch_size: int
) -> float:
    """What the network takes for all ``images``, whose batches are on the device already."""
    now = clock(extractor.model.device)
    seconds = 0.0
    loaded = map(load, (image.path for image in images))
    for batch in bucketed_batches(loaded, batch_size, lambda image: image.padded_size):
        on_device = extractor.to_network(batch.images, batch.padded_size)
        begin = now()
        extractor.network(on_device)
        seconds += now() - begin
    return seconds


def count_macs(
    extractor: RegionFeatureExtractor,
    images: Sequence[InputImage],
    batch_size: int,
    write: Write,
) -> dict[str, float]:
    """Multiply-accumulates of all ``images`` by stage: convolutions and matrix products.

    They are counted where they run, with their actual shapes and groups, padding included. What
    isn't one of those two (batch norm, ROIAlign, NMS, the choice of regions) isn't counted.
    """
    with FlopCounterMode(display=False, custom_mapping=_fused()) as counter:
        laps = Laps(lambda: counter.get_total_flops() / 2)
        pass_through(extractor, images, batch_size, laps, write)
    return laps.totals


def _fused() -> dict:
    """How to count the operators of ``modeling.inference_form``, which the counter lacks."""
    if not can_fuse():
        return {}

    def plain(x, weight, *_, out_shape, **__):
        return conv_flop_count(x, weight, out_shape)

    def with_shortcut(_, x, weight, *__, out_shape, **___):
        return conv_flop_count(x, weight, out_shape)

    operators = torch.ops.mkldnn
    return {
        operators._convolution_pointwise: plain,
        operators._convolution_pointwise_: with_shortcut,
    }
