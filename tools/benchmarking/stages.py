"""The extraction taken apart: one stage after the other, with a reading between.

Every stage is the function that an extraction calls, and the network is one call as there; where
one of its parts ends is told by hooks.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence

import torch
from detectron2.structures import Instances

from vmb_d2.data.batching import bucketed_batches
from vmb_d2.data.preprocessing import NetworkImage, preprocess, read_image, read_padded_size
from vmb_d2.extractor import RegionFeatureExtractor
from vmb_d2.modeling import VMBRCNN
from vmb_d2.structures.input_image import InputImage
from vmb_d2.structures.regions import RegionFeatures

STAGES = (
    "decode",  # the header, then the pixels
    "resize",  # the mean is taken off, too
    "transfer",  # padded, and brought to the device
    "backbone",
    "rpn",
    "roi_head",  # pooling, features and logits
    "selection",  # softmax, choice, back from the device
    "write",
)

ReadOut = Callable[[Sequence[Instances], Sequence[NetworkImage]], list[RegionFeatures]]
Write = Callable[[Sequence[InputImage], Sequence[RegionFeatures]], None]


def clock(device: torch.device) -> Callable[[], float]:
    """A function that gives seconds, once all that the device was given to do is done."""

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    return now


class Laps:
    """By how much a reading grows in each stage.

    Args:
        reading: never falls: a clock, or a counter of operations.

    Attributes:
        totals: of each stage so far.
    """

    def __init__(self, reading: Callable[[], float]):
        self._reading = reading
        self._last = reading()
        self.totals = dict.fromkeys(STAGES, 0.0)

    def begin(self) -> None:
        """What was since the last reading belongs to no stage."""
        self._last = self._reading()

    def end(self, stage: str) -> None:
        """What was since the last reading was ``stage``."""
        now = self._reading()
        self.totals[stage] += now - self._last
        self._last = now


@contextlib.contextmanager
def network_laps(model: VMBRCNN, laps: Laps) -> Iterator[None]:
    """End the laps of ``backbone`` and ``rpn`` wherever the model has run them."""
    parts = {"backbone": model.backbone, "rpn": model.proposal_generator}
    hooks = [
        part.register_forward_hook(lambda *_, stage=stage: laps.end(stage))
        for stage, part in parts.items()
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def pass_through(
    extractor: RegionFeatureExtractor,
    images: Sequence[InputImage],
    batch_size: int,
    laps: Laps,
    write: Write,
    read_out: ReadOut | None = None,
) -> None:
    """Extract ``images``, and take down in ``laps`` what each stage took.

    Args:
        extractor: does the work.
        images: in the batches of ``extract.batching=bucketed``.
        batch_size: of these.
        laps: to add to.
        write: puts a batch's regions where they belong.
        read_out: in the place of the extractor's own.

    Raises:
        ImageReadError: an image can't be read.
    """
    read_out = read_out or extractor.read_out

    def size_of(image: InputImage) -> tuple[int, int]:
        size = read_padded_size(image.path)
        laps.end("decode")
        return size

    laps.begin()
    with network_laps(extractor.model, laps):
        for batch in bucketed_batches(images, batch_size, size_of):
            loaded = []
            for image in batch.images:
                rgb = read_image(image.path)
                laps.end("decode")
                loaded.append(preprocess(rgb))
                laps.end("resize")
            on_device = extractor.to_network(loaded, batch.padded_size)
            laps.end("transfer")
            regions = extractor.network(on_device)
            laps.end("roi_head")
            results = read_out(regions, loaded)
            laps.end("selection")
            write(batch.images, results)
            laps.end("write")
