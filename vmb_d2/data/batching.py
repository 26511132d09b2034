"""Which images go through the network together."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections import deque
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Sequence, Set
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from ..errors import ConfigError, ImageReadError
from ..structures.input_image import InputImage
from . import preprocessing

AUTO = "auto"
BATCHINGS = ("bucketed", "mmf")
SIZE_THREADS = 4
SIZES_AHEAD = 32  # images

Size = tuple[int, int]
Image = TypeVar("Image")
HashableImage = TypeVar("HashableImage", bound=Hashable)


@dataclass(frozen=True)
class Batch(Generic[Image]):
    """Images that go through the network together.

    Attributes:
        images: at least one.
        padded_size: (height, width) in network pixels to which each is padded.
    """

    images: list[Image]
    padded_size: Size


@dataclass(frozen=True)
class Batching:
    """How images are grouped into batches.

    Attributes:
        kind: ``"bucketed"``: only images of one padded size share a batch, so that features don't
            depend on batch size, order or batch mates. ``"mmf"``: chunks of the list of images,
            padded, and clipped to, the largest of the chunk, as the original forms them.
        batch_size: the most images of a batch, at least 1; ``"auto"`` where it is to be chosen by
            the device's memory. Until then, batches are of 1.

    Raises:
        ConfigError: another value, or ``"auto"`` with ``"mmf"``.
    """

    kind: str = "bucketed"
    batch_size: int | str = 1

    def __post_init__(self) -> None:
        if self.kind not in BATCHINGS:
            raise ConfigError(field="batching", value=self.kind, valid=BATCHINGS)
        if self.is_auto and self.kind == "mmf":
            raise ConfigError(
                "with `batching`=mmf features depend on the batch size, so it has to be a number, "
                "the original run's; or take `batching`=bucketed",
                field="batch_size",
                value=AUTO,
            )
        if not self.is_auto:
            text = str(self.batch_size)
            if not re.fullmatch(r"0*[1-9]\d*", text):
                raise ConfigError(
                    f"has to be a whole number, at least 1, or {AUTO}",
                    field="batch_size",
                    value=self.batch_size,
                )
            object.__setattr__(self, "batch_size", int(text))

    @property
    def is_auto(self) -> bool:
        """Whether the batch size is to be chosen by the device's memory."""
        return self.batch_size == AUTO

    @property
    def most(self) -> int:
        """The most images of a batch."""
        return 1 if self.is_auto else int(self.batch_size)

    @property
    def chunk(self) -> int:
        """How many consecutive images have to stay in one shard."""
        return self.most if self.kind == "mmf" else 1

    def __str__(self) -> str:
        """As the manifest has it: all that features depend on."""
        return f"mmf, of {self.most}" if self.kind == "mmf" else self.kind

    @staticmethod
    def of_manifest(text: object) -> Batching:
        """The batching of :meth:`__str__`'s text; bucketed for any other."""
        match = re.fullmatch(r"mmf, of ([1-9]\d*)", str(text))
        return Batching("mmf", int(match[1])) if match else Batching()

    def fits(self, own: Size, padded_size: Size) -> bool:
        """Whether an image of the padded size ``own`` can be in a batch of ``padded_size``."""
        if self.kind == "bucketed":
            return own == padded_size
        return own[0] <= padded_size[0] and own[1] <= padded_size[1]

    def sized_images(
        self, images: Sequence[HashableImage], pending: Sequence[HashableImage]
    ) -> Sequence[HashableImage]:
        """The images whose sizes the batches of ``pending`` depend on.

        Args:
            images: all of the run, in order.
            pending: those of them that are to be extracted, in order.
        """
        if self.kind == "bucketed":
            return pending
        wanted = set(pending)
        chunks = (images[i : i + self.most] for i in range(0, len(images), self.most))
        return [image for chunk in chunks if not wanted.isdisjoint(chunk) for image in chunk]

    def batches(
        self,
        sized: Iterable[tuple[HashableImage, Size | None]],
        pending: Set[HashableImage],
    ) -> Iterator[Batch[HashableImage]]:
        """The batches of ``pending``.

        Args:
            sized: the images of :meth:`sized_images`, in order, each with its padded size; None
                where that isn't known: the image is left out, and has no part in the batch's size.
            pending: the images that are to be extracted, as a set.
        """
        if self.kind == "bucketed":
            known = ((image, size) for image, size in sized if size is not None)
            for bucket in bucketed_batches(known, self.most, lambda pair: pair[1]):
                yield Batch([image for image, _ in bucket.images], bucket.padded_size)
            return
        sized = iter(sized)
        while chunk := list(itertools.islice(sized, self.most)):
            sizes = [size for _, size in chunk if size is not None]
            batch = [image for image, size in chunk if size is not None and image in pending]
            if batch:
                yield Batch(batch, (max(h for h, _ in sizes), max(w for _, w in sizes)))


def bucketed_batches(
    images: Iterable[Image], batch_size: int, padded_size_of: Callable[[Image], Size]
) -> Iterator[Batch[Image]]:
    """Batches of images that have the same padded size.

    A batch comes as soon as ``batch_size`` images of its size were seen; the rest, in order of
    first appearance, at the end.
    """
    buckets: dict[Size, list[Image]] = {}
    for image in images:
        size = padded_size_of(image)
        bucket = buckets.setdefault(size, [])
        bucket.append(image)
        if len(bucket) == batch_size:
            yield Batch(buckets.pop(size), size)
    for size, bucket in buckets.items():
        yield Batch(bucket, size)


def planned_batches(
    images: Sequence[InputImage],
    pending: Sequence[InputImage],
    batching: Batching,
    *,
    ahead: bool,
    fail: Callable[[InputImage, ImageReadError], None],
) -> Generator[Batch[InputImage]]:
    """The batches of ``pending``, by the sizes in the headers of the image files.

    Args:
        images: all of the run, in order.
        pending: those of them that are to be extracted, in order.
        batching: how they are grouped.
        ahead: read headers before they are needed, in threads.
        fail: called for each pending image whose header can't be read. What it raises ends the
            iteration.
    """
    of_batches = batching.sized_images(images, pending)
    wanted = set(pending)
    threads = SIZE_THREADS if ahead else 0

    def sized() -> Iterator[tuple[InputImage, Size | None]]:
        for image, size in zip(of_batches, sizes, strict=True):
            if isinstance(size, ImageReadError):
                if image in wanted:
                    fail(image, size)
                yield image, None
            else:
                yield image, size

    with contextlib.closing(read_sizes((image.path for image in of_batches), threads)) as sizes:
        yield from batching.batches(sized(), wanted)


def read_sizes(
    paths: Iterable[str], threads: int, ahead: int = SIZES_AHEAD
) -> Generator[Size | ImageReadError]:
    """The padded size of each image file in order, or why its header can't be read.

    Args:
        threads: that read headers before they are asked for; 0: none, each is read when asked for.
        ahead: the most headers to read before they are asked for.
    """
    if not threads:
        yield from map(_size, paths)
        return
    waiting: deque[Future[Size | ImageReadError]] = deque()
    executor = ThreadPoolExecutor(threads, thread_name_prefix="sizes")
    try:
        for path in paths:
            waiting.append(executor.submit(_size, path))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        executor.shutdown(wait=False, cancel_futures=True)


def _size(path: str) -> Size | ImageReadError:
    try:
        return preprocessing.read_padded_size(path)
    except ImageReadError as error:
        return error
