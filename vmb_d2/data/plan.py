"""Which images of a run share a batch, by what the headers of their files say."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

from ..errors import ImageReadError
from ..structures.input_image import InputImage
from . import preprocessing as images
from .batching import Batch, Size, bucketed_batches, mmf_batches, mmf_chunks
from .sizes import sizes_ahead


def planned_batches(
    images_of_run: Sequence[InputImage],
    pending: Sequence[InputImage],
    *,
    batching: str,
    batch_size: int,
    ahead: bool,
    fail: Callable[[InputImage, ImageReadError], None],
) -> Iterator[Batch[InputImage]]:
    """The batches of ``pending``, in order.

    Args:
        images_of_run: all of them; those that are done have a say in MMF's batches.
        pending: those to be extracted.
        batching, batch_size: see :class:`vmb_d2.engine.pipeline.ExtractionPipeline`.
        ahead: read headers before they are asked for; else a batch's when it is asked for.
        fail: called for an image whose header can't be read, when it comes to its batch. What it
            raises goes on.
    """
    names = {image.name for image in pending}

    def is_wanted(image: InputImage) -> bool:
        return image.name in names

    asked = pending
    if batching == "mmf":
        chunks = mmf_chunks(images_of_run, batch_size, is_wanted)
        asked = (image for chunk in chunks for image in chunk)
    paths = (image.path for image in asked)
    sizes = sizes_ahead(paths, images.read_padded_size, **({} if ahead else {"threads": 0}))

    def padded_size(image: InputImage) -> Size | None:
        size = next(sizes)
        if isinstance(size, ImageReadError):
            if is_wanted(image):
                fail(image, size)
            return None
        if isinstance(size, Exception):
            raise size
        return size

    with contextlib.closing(sizes):
        if batching == "mmf":
            yield from mmf_batches(images_of_run, batch_size, padded_size, is_wanted)
        else:
            yield from bucketed_batches(pending, batch_size, padded_size)
