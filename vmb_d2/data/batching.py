"""Which images go through the network together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Size = tuple[int, int]
Image = TypeVar("Image")


@dataclass(frozen=True)
class Batch(Generic[Image]):
    """Images that go through the network together.

    Attributes:
        images: whatever stands for them.
        padded_size: (height, width) in network pixels to which each is padded.
    """

    images: list[Image]
    padded_size: Size


def bucketed_batches(
    images: Iterable[Image], batch_size: int, padded_size_of: Callable[[Image], Size | None]
) -> Iterator[Batch[Image]]:
    """Batches of images that have the same padded size.

    A batch comes as soon as ``batch_size`` images of its size were seen; the rest, in order of
    first appearance, at the end. Images whose size is None are left out.
    """
    buckets: dict[Size, list[Image]] = {}
    for image in images:
        size = padded_size_of(image)
        if size is None:
            continue
        bucket = buckets.setdefault(size, [])
        bucket.append(image)
        if len(bucket) == batch_size:
            yield Batch(buckets.pop(size), size)
    for size, bucket in buckets.items():
        yield Batch(bucket, size)


def mmf_chunks(
    images: Sequence[Image], batch_size: int, is_wanted: Callable[[Image], bool]
) -> Iterator[Sequence[Image]]:
    """The chunks of ``images`` in order, of which an image is wanted."""
    for begin in range(0, len(images), batch_size):
        chunk = images[begin : begin + batch_size]
        if any(map(is_wanted, chunk)):
            yield chunk


def mmf_batches(
    images: Sequence[Image],
    batch_size: int,
    padded_size_of: Callable[[Image], Size | None],
    is_wanted: Callable[[Image], bool] = lambda image: True,
) -> Iterator[Batch[Image]]:
    """MMF's batches: chunks of ``images`` in order, padded to the largest of the chunk.

    Images that are not wanted are left out of the batch but keep their place in the chunk and
    their say in its size, so that what is done already never changes what is left. Images whose
    size is None are left out without a say.
    """
    for chunk in mmf_chunks(images, batch_size, is_wanted):
        sizes = [padded_size_of(image) for image in chunk]
        known = [size for size in sizes if size is not None]
        sized = zip(chunk, sizes, strict=True)
        wanted = [image for image, size in sized if size is not None and is_wanted(image)]
        if wanted:
            yield Batch(wanted, (max(h for h, _ in known), max(w for _, w in known)))
