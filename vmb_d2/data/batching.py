"""Which images go through the network together."""

from __future__ import annotations

import contextlib
import itertools
import re
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from ..config.input_step import MMF_INPUT, InputStep
from ..errors import ConfigError, ImageReadError
from ..structures.input_image import InputImage
from . import preprocessing

AUTO = "auto"
BATCHINGS = ("bucketed", "mmf")
SIZE_THREADS = 4
SIZES_AHEAD = 32  # images whose headers are read at a time

Size = tuple[int, int]
Image = TypeVar("Image")


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
                "has to be a number with `batching`=mmf, where features depend on it; or take "
                "`batching`=bucketed",
                field="batch_size",
                value=AUTO,
            )
        if not self.is_auto:
            text = str(self.batch_size)
            if not (text.isdecimal() and int(text)):
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
    fail: Callable[[InputImage, ImageReadError], None],
    step: InputStep = MMF_INPUT,
) -> Generator[Batch[InputImage]]:
    """The batches of ``pending``, by the sizes in the headers of the image files.

    Args:
        images: all of the run, in order.
        pending: those of them that are to be extracted, in order.
        batching: how they are grouped.
        fail: called for each pending image whose header can't be read. What it raises ends the
            iteration.
        step: how images become the network's input.
    """
    most, wanted = batching.most, set(pending)
    of_batches = pending
    if batching.kind == "mmf":
        chunks = (images[i : i + most] for i in range(0, len(images), most))
        of_batches = [image for c in chunks if not wanted.isdisjoint(c) for image in c]

    def sized() -> Iterator[tuple[InputImage, Size | None]]:
        for image, size in zip(of_batches, sizes, strict=True):
            if isinstance(size, ImageReadError):
                if image in wanted:
                    fail(image, size)
                yield image, None
            else:
                yield image, size

    with contextlib.closing(_read_sizes(of_batches, step)) as sizes:
        if batching.kind == "mmf":
            yield from _chunks(sized(), wanted, most)
        else:
            known = ((image, size) for image, size in sized() if size is not None)
            for bucket in bucketed_batches(known, most, lambda pair: pair[1]):
                yield Batch([image for image, _ in bucket.images], bucket.padded_size)


def _chunks(
    sized: Iterator[tuple[InputImage, Size | None]], wanted: Set[InputImage], most: int
) -> Iterator[Batch[InputImage]]:
    """The wanted images of each ``most`` consecutive ones, padded to the largest size of these."""
    while chunk := list(itertools.islice(sized, most)):
        sizes = [size for _, size in chunk if size is not None]
        batch = [image for image, size in chunk if size is not None and image in wanted]
        if batch:
            yield Batch(batch, (max(h for h, _ in sizes), max(w for _, w in sizes)))


def _read_sizes(images: Sequence[InputImage], step: InputStep) -> Generator[Size | ImageReadError]:
    """The padded size of each image in order, or why its file's header can't be read."""

    def size_of(image: InputImage) -> Size | ImageReadError:
        try:
            return preprocessing.read_padded_size(image.path, step)
        except ImageReadError as error:
            return error

    with ThreadPoolExecutor(SIZE_THREADS, thread_name_prefix="sizes") as threads:
        for begin in range(0, len(images), SIZES_AHEAD):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow repeats them when it reads the pixels
                sizes = list(threads.map(size_of, images[begin : begin + SIZES_AHEAD]))
            yield from sizes
