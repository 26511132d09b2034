"""The path of images through a run: read, extracted, written; what fails is recorded."""

from __future__ import annotations

import contextlib
import gc
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from ..data.batching import Batch, Batching, Size, planned_batches
from ..data.given_boxes import GivenBoxes
from ..data.loading import Outcome, loaded_batches
from ..data.preprocessing import CONVERSIONS, NetworkImage
from ..errors import BoxesError, ImageReadError, TooManyFailures
from ..output.failures import FailureLog
from ..output.store_set import StoreSet
from ..structures.input_image import InputImage
from ..structures.regions import RegionFeatures
from ..utils import interruption
from ..utils.devices import is_out_of_memory
from ..utils.progress import progress_of
from .upload import Uploader

if TYPE_CHECKING:  # a run with nothing to do doesn't import torch
    from torch import Tensor

    from ..extractor import RegionFeatureExtractor
    from ..modeling import NetworkBatch

MOST_UNWRITTEN = 3  # batches

logger = logging.getLogger(__name__)


@dataclass
class Counts:
    """What became of the images.

    Attributes:
        images: asked for.
        extracted, failed: in this run.
        skipped: there before; None until that is known.
        out_of_memory: how many batches were tried again in halves.
        seconds: from before the first image was read to after the last was written.
    """

    images: int = 0
    extracted: int = 0
    skipped: int | None = None
    failed: int = 0
    out_of_memory: int = 0
    seconds: float = 0.0

    def totals(self) -> dict[str, int]:
        """For the manifest: images asked for, done before and now, failed."""
        done = (self.skipped or 0) + self.extracted
        return {"images": self.images, "done": done, "failed": self.failed}


class _Loaded(NamedTuple):
    """An image that was read, and the boxes that are given for it."""

    image: InputImage
    content: NetworkImage
    boxes: Tensor | None


@dataclass
class ExtractionPipeline:
    """Extracts images into stores.

    While the network computes, images are read ahead in processes, the next batch is brought to the
    device in a thread, and the batches before are written in another, :data:`MOST_UNWRITTEN` at
    most.

    Attributes:
        extractor: gives the regions.
        stores: open.
        failures: where images that fail are recorded.
        counts: to fill in, also where the run is stopped.
        batching: how images are grouped into batches.
        boxes: to take instead of the proposals.
        max_failures: with more failures than this the run stops; None for no limit.
        workers: how many processes read images; 0: none but this one.
        before_write: called before each write, in the thread that writes. What it raises ends the
            run, and nothing more is written.
        uploads_ahead: whether the next batch is brought to the device in a thread; else each when
            it is computed. On the CPU there is nothing to gain.
    """

    extractor: RegionFeatureExtractor
    stores: StoreSet
    failures: FailureLog
    counts: Counts
    batching: Batching
    boxes: GivenBoxes | None
    max_failures: int | None
    workers: int
    before_write: Callable[[], None]
    uploads_ahead: bool = False

    def __post_init__(self) -> None:
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="writer")
        self._most_at_once = self.batching.most
        self._unwritten: deque[Future[None]] = deque()
        self._conversions: Counter[str] = Counter()  # images of each kind

    def run(self, images: Sequence[InputImage], pending: Sequence[InputImage]) -> None:
        """Extract ``pending``, once.

        Args:
            images: all images of the run: those that are done can have a part in the padded size
                of a batch.
            pending: those of them that are to be extracted.

        Raises:
            OutputError: features can't be written; what was written before stays.
            TooManyFailures: more than ``max_failures``.
            Interrupted: a signal came. What was extracted is written.
        """
        self._began = time.perf_counter()
        with contextlib.ExitStack() as stack:
            progress = stack.enter_context(progress_of(len(pending)))
            stack.callback(lambda: progress.show(self.counts.extracted, self.counts.failed))
            # However the block ends, what was extracted is written first. The error of a write
            # goes before the one that ended the block: the stores aren't closed as usual then.
            stack.callback(self._wait_for_writes, 0)
            stack.enter_context(self._writer)
            if self.boxes is not None:
                stack.callback(self.boxes.log_outside)
            step = self.extractor.input_step
            batches = planned_batches(
                images,
                pending,
                self.batching,
                fail=lambda image, error: self._fail(image, error, "read"),
                step=step,
            )
            stack.enter_context(contextlib.closing(batches))
            loaded = loaded_batches(batches, self.workers, self.batching.most, step)
            stack.enter_context(contextlib.closing(loaded))
            uploaded = stack.enter_context(contextlib.closing(self._uploaded(loaded)))
            for items, padded_size, upload in uploaded:
                interruption.check()
                self._extract(items, padded_size, upload)
                progress.show(self.counts.extracted, self.counts.failed)
        self.counts.seconds = time.perf_counter() - self._began
        if self._conversions:
            pairs = ((self._conversions[kind], words) for kind, words in CONVERSIONS.items())
            modes = ", ".join(f"{count} {words}" for count, words in pairs if count)
            logger.info("image modes: %s", modes)

    def _uploaded(
        self, loaded: Iterable[tuple[Batch[InputImage], list[Outcome]]]
    ) -> Generator[tuple[list[_Loaded], Size, Future[NetworkBatch] | None]]:
        """Each batch, while the one after it is brought to the device."""
        before = None
        with Uploader(self.extractor) as uploader:
            for batch, outcomes in loaded:
                items, size = self._loaded(batch, outcomes), batch.padded_size
                if not self.uploads_ahead:
                    yield items, size, None
                    continue
                own = uploader.upload([item.content for item in items], size) if items else None
                if before is not None:
                    yield before
                before = items, size, own
            if before is not None:
                yield before

    def _loaded(self, batch: Batch[InputImage], outcomes: Sequence[Outcome]) -> list[_Loaded]:
        """The images of a batch that can be extracted; the others are recorded as failures."""
        loaded = []
        for image, content in zip(batch.images, outcomes, strict=True):
            if isinstance(content, ImageReadError):
                self._fail(image, content, "read")
                continue
            if not self.batching.fits(content.padded_size, batch.padded_size):
                self._fail(image, "was exchanged for another image while being read", "read")
                continue
            boxes = None
            if self.boxes is not None:
                try:
                    boxes = self.boxes.of(
                        image.name,
                        content.width,
                        content.height,
                        self.extractor.model.box_convention.inclusive,
                    )
                except BoxesError as error:
                    self._fail(image, error, "boxes")
                    continue
            loaded.append(_Loaded(image, content, boxes))
            self._conversions.update(content.conversions)
        return loaded

    def _extract(
        self,
        loaded: list[_Loaded],
        padded_size: Size,
        upload: Future[NetworkBatch] | None = None,
    ) -> None:
        """Extract images of one padded size; in halves where memory isn't enough for all.

        ``upload`` is under way, or None where it is still to be done.
        """
        if not loaded:
            return
        if len(loaded) <= self._most_at_once:
            regions = self._regions(loaded, padded_size, upload)
            if regions is not None:
                self._write_later(loaded, regions)
                return
            if len(loaded) == 1:
                height, width = padded_size
                reason = f"out of memory at {width} x {height} network pixels"
                self._fail(loaded[0].image, reason, "network")
                return
            self._most_at_once = len(loaded) // 2
            words = "out of memory with %d images at once: from now on at most %d"
            logger.warning(words, len(loaded), self._most_at_once)
        half = len(loaded) // 2
        self._extract(loaded[:half], padded_size)
        self._extract(loaded[half:], padded_size)

    def _regions(
        self, loaded: list[_Loaded], padded_size: Size, upload: Future[NetworkBatch] | None
    ) -> list[RegionFeatures] | None:
        """What the extractor gives; None where it runs out of memory."""
        import torch

        images = [item.content for item in loaded]
        boxes = [item.boxes for item in loaded if item.boxes is not None]
        given = None if self.boxes is None else boxes
        try:
            batch = None if upload is None else upload.result()
            return self.extractor.extract_batch(images, padded_size, given, batch)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        # Outside of the except block, since the error's traceback refers to the tensors.
        self.counts.out_of_memory += 1
        gc.collect()
        torch.cuda.empty_cache()
        return None

    def _write_later(self, loaded: list[_Loaded], regions: list[RegionFeatures]) -> None:
        """Have the thread write what can be stored; the other images are recorded as failures."""
        usable, failed = {}, {}
        for item, of_image in zip(loaded, regions, strict=True):
            if reason := self._unusable(of_image):
                failed[item.image] = reason
            else:
                usable[item.image.name] = of_image
        self._wait_for_writes(MOST_UNWRITTEN - 1)
        previous = self._unwritten[-1] if self._unwritten else None
        self._unwritten.append(self._writer.submit(self._write, usable, previous))
        for image, reason in failed.items():
            self._fail(image, reason, "network")

    def _unusable(self, regions: RegionFeatures) -> str | None:
        """Why regions can't be stored; None where they can."""
        if reason := regions.not_finite():
            if self.extractor.precision == "fp16":
                reason += " (fp16 overflows at 65504; precision=fp32 may do)"
            return reason
        return self.stores.unfit(regions)

    def _wait_for_writes(self, most_unwritten: int) -> None:
        """Wait until at most so many batches are left to be written. Raises a write's error."""
        while len(self._unwritten) > most_unwritten:
            self._unwritten[0].result()
            self._unwritten.popleft()

    def _write(self, regions: dict[str, RegionFeatures], previous: Future[None] | None) -> None:
        """Write a batch, in the thread, unless the write before it has failed."""
        if previous is not None:
            previous.result()
        self.counts.seconds = time.perf_counter() - self._began
        self.before_write()
        for name, image_regions in regions.items():
            self.stores.write(name, image_regions)
        self.stores.flush()
        self.counts.extracted += len(regions)

    def _fail(self, image: InputImage, reason: object, stage: str) -> None:
        """Record that an image failed. Raises TooManyFailures."""
        self.counts.failed += 1
        reason = str(reason).removeprefix(f"{image.path}: ")
        self.failures.add(image.path, image.name, reason, stage)
        logger.warning("failed: %s: %s", image.path, reason)
        if self.max_failures is not None and self.counts.failed > self.max_failures:
            raise TooManyFailures(
                f"{self.counts.failed} images failed, more than "
                f"`max_failures`={self.max_failures}; the last: {image.path}: {reason}"
            )
