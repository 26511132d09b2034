"""The extraction's stages, run and measured one after the other.

Each stage is the function that an extraction calls. The network is one call, as there; forward
hooks tell where one of its parts ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from detectron2.structures import Instances
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from vmb_d2.data.batching import bucketed_batches
from vmb_d2.data.preprocessing import NetworkImage, load, preprocess, read_image, read_padded_size
from vmb_d2.extractor import RegionFeatureExtractor
from vmb_d2.modeling.inference_form import can_fuse
from vmb_d2.structures.input_image import InputImage
from vmb_d2.structures.regions import RegionFeatures
from vmb_d2.utils.devices import arithmetic, clock, dtype_of

STAGES = (
    "decode",  # the header, then the pixels
    "resize",  # the mean subtracted, too
    "transfer",  # padded, and copied to the device
    "backbone",
    "rpn",
    "roi_head",  # pooling, features and class logits
    "selection",  # softmax, choice of regions, copied to the host
    "write",
)
_SIDES = {"cpu": 2048, "cuda": 8192}  # of the matrices whose product is the peak
_PRODUCTS = 5

ReadOut = Callable[[Sequence[Instances], Sequence[NetworkImage]], list[RegionFeatures]]
Write = Callable[[Sequence[InputImage], Sequence[RegionFeatures]], None]


def run_stages(
    extractor: RegionFeatureExtractor,
    images: Sequence[InputImage],
    batch_size: int,
    write: Write,
    read_out: ReadOut | None = None,
) -> dict[str, float]:
    """Extract ``images`` in batches of equal padded size, and return the seconds of each stage.

    ``read_out`` is called instead of the extractor's own. Raises ImageReadError.
    """
    read_out = read_out or extractor.read_out
    seconds = dict.fromkeys(STAGES, 0.0)
    now = clock(extractor.model.device)
    last = now()

    def end(stage: str) -> None:
        nonlocal last
        moment = now()
        seconds[stage] += moment - last
        last = moment

    def size_of(image: InputImage) -> tuple[int, int]:
        size = read_padded_size(image.path, extractor.input_step)
        end("decode")
        return size

    model = extractor.model
    hooks = [
        model.backbone.register_forward_hook(lambda *_: end("backbone")),
        model.proposal_generator.register_forward_hook(lambda *_: end("rpn")),
    ]
    try:
        for batch in bucketed_batches(images, batch_size, size_of):
            loaded = []
            for image in batch.images:
                rgb = read_image(image.path, extractor.input_step.decoder)
                end("decode")
                loaded.append(preprocess(rgb, extractor.input_step))
                end("resize")
            on_device = extractor.to_network(loaded, batch.padded_size)
            end("transfer")
            regions = extractor.network(on_device)
            end("roi_head")
            results = read_out(regions, loaded)
            end("selection")
            write(batch.images, results)
            end("write")
    finally:
        for hook in hooks:
            hook.remove()
    return seconds


def network_seconds(
    extractor: RegionFeatureExtractor, images: Sequence[InputImage], batch_size: int
) -> float:
    """Time of the network alone for all ``images``; their batches are on the device already."""
    now = clock(extractor.model.device)
    seconds = 0.0
    loaded = (load(image.path, extractor.input_step) for image in images)
    for batch in bucketed_batches(loaded, batch_size, lambda image: image.padded_size):
        on_device = extractor.to_network(batch.images, batch.padded_size)
        begin = now()
        extractor.network(on_device)
        seconds += now() - begin
    return seconds


def count_macs(
    extractor: RegionFeatureExtractor, images: Sequence[InputImage], batch_size: int
) -> float:
    """Multiply-accumulates of the network for all ``images``, of convolutions and matrix products.

    Counted where they run, with their shapes and groups, padding included. Batch norm, ROIAlign and
    NMS are not counted.
    """
    with FlopCounterMode(display=False, custom_mapping=_fused_convolutions()) as counter:
        network_seconds(extractor, images, batch_size)
    return counter.get_total_flops() / 2


def _fused_convolutions() -> dict[Any, Callable[..., int]]:
    """How to count the operators of ``modeling.inference_form``, which the counter lacks."""
    if not can_fuse(torch.float32):
        return {}

    def into_new(x, weight, *_, out_shape, **__) -> int:
        return conv_flop_count(x, weight, out_shape)

    def onto_shortcut(shortcut, x, weight, *_, out_shape, **__) -> int:
        return conv_flop_count(x, weight, out_shape)

    return {
        torch.ops.mkldnn._convolution_pointwise: into_new,
        torch.ops.mkldnn._convolution_pointwise_: onto_shortcut,
    }


@torch.no_grad()
def peak_macs_per_second(precision: str, device: torch.device) -> float:
    """Multiply-accumulates a second of the fastest of several products of large square matrices."""
    side = _SIDES[device.type]
    a, b = (torch.rand(side, side, device=device).to(dtype_of(precision)) for _ in range(2))
    now, seconds = clock(device), []
    with arithmetic(precision):
        for _ in range(1 + _PRODUCTS):
            begin = now()
            torch.matmul(a, b)
            seconds.append(now() - begin)
    return side**3 / min(seconds[1:])
