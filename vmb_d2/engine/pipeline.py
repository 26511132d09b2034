"""A run over many images: what is done is skipped, what fails is recorded, the rest goes on."""

from __future__ import annotations

import contextlib
import gc
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import compress
from typing import TYPE_CHECKING

from ..data.batching import Batch, Size
from ..data.given_boxes import GivenBoxes
from ..data.image_list import is_folder
from ..data.loading import default_workers, loaded_batches
from ..data.plan import planned_batches
from ..data.preprocessing import CONVERSIONS, NetworkImage, warnings_to
from ..errors import BoxesError, ConfigError, ImageReadError, TooManyFailures
from ..output.failures import FailureLog
from ..output.store_set import StoreSet
from ..structures.input_image import InputImage
from ..structures.regions import RegionFeatures
from ..utils import interruption
from ..utils.background import BackgroundWriter
from ..utils.progress import Progress

if TYPE_CHECKING:  # seeing that nothing is to do takes no torch
    from torch import Tensor

    from ..extractor import RegionFeatureExtractor

BATCHING = ("bucketed", "mmf")

logger = logging.getLogger(__name__)


@dataclass
class Counts:
    """What became of the images.

    Attributes:
        extracted, failed: in this run.
        skipped: there before.
        out_of_memory: how many batches were tried again in smaller parts.
        seconds: from before the first image was read to after the last was written.
    """

    extracted: int = 0
    skipped: int = 0
    failed: int = 0
    out_of_memory: int = 0
    seconds: float = 0.0


class ExtractionPipeline:
    """Extracts images into stores.

    While the network is at work, images are read ahead in processes, and what it gave before is
    written in a thread: neither gets far ahead of, or behind it.

    Args:
        stores: open; they know which images are done.
        failures: where images that fail are recorded.
        batch_size: images that go through the network together, at most. As an attribute it can
            still be changed before the run is called.
        batching: ``"bucketed"``: only images of one padded size share a batch, so that features
            don't depend on batch size, order or batch mates. ``"mmf"``: the original's chunks,
            padded, and clipped to, the largest of the chunk.
        boxes: to take instead of the proposals.
        max_failures: with more failures than this the run stops; None for no such limit.
        workers: how many processes read images; 0: none but this; None: as
            :func:`vmb_d2.reading.default_workers` says.
        report: to fill in; None for a new one.
        before_write: called with the report before each write, in the thread that writes; what it
            raises ends the run, and nothing more is written.

    Attributes:
        report: so far, also where the run was stopped.

    Raises:
        ConfigError: a number or name out of range.
    """

    def __init__(
        self,
        stores: StoreSet,
        failures: FailureLog,
        *,
        batch_size: int = 1,
        batching: str = "bucketed",
        boxes: GivenBoxes | None = None,
        max_failures: int | None = None,
        workers: int | None = None,
        report: Counts | None = None,
        before_write: Callable[[Counts], None] = lambda report: None,
    ):
        if batch_size < 1:
            raise ConfigError(f"extract.batch_size={batch_size}: has to be at least 1")
        if batching not in BATCHING:
            raise ConfigError(f"extract.batching={batching}: valid are {', '.join(BATCHING)}")
        if max_failures is not None and max_failures < 0:
            raise ConfigError(f"input.max_failures={max_failures}: has to be at least 0")
        if workers is not None and workers < 0:
            raise ConfigError(f"extract.workers={workers}: has to be at least 0")
        self.stores = stores
        self.failures = failures
        self.batch_size = batch_size
        self.batching = batching
        self.boxes = boxes
        self.max_failures = max_failures
        self.workers = workers
        self.before_write = before_write
        self.report = Counts() if report is None else report
        self._conversions: Counter[str] = Counter()  # images of each kind

    def pending(self, images: Sequence[InputImage]) -> list[InputImage]:
        """Those that are not done yet."""
        done = self.stores.present(image.name for image in images)
        return [image for image in images if image.name not in done or is_folder(image.path)]

    def run(
        self,
        images: Sequence[InputImage],
        pending: Sequence[InputImage],
        extractor: RegionFeatureExtractor,
    ) -> Counts:
        """Extract ``pending``.

        Args:
            images: all images of the run; those that are done have a say in MMF's batches.
            pending: what :meth:`pending` gave for them.
            extractor: does the work.

        Raises:
            OutputError: features can't be written; what was written before stays.
            TooManyFailures: more than ``max_failures``.
        """
        self.report.skipped = len(images) - len(pending)
        self._most_at_once = self.batch_size
        workers = self.workers
        if workers is None:
            workers = default_workers(extractor.model.device)
        with (
            warnings_to(self._warn),
            Progress(len(pending)) as progress,
            BackgroundWriter(partial(self._write, progress)) as writer,
            contextlib.ExitStack() as stack,
        ):
            batches = planned_batches(
                images,
                pending,
                batching=self.batching,
                batch_size=self.batch_size,
                ahead=workers > 0,
                fail=lambda image, error: self._fail(image, error, "read", progress),
            )
            stack.enter_context(contextlib.closing(batches))
            if self.boxes is not None:
                stack.callback(self.boxes.log_outside)
            loaded = loaded_batches(batches, workers, self.batch_size)
            for batch, outcomes in stack.enter_context(contextlib.closing(loaded)):
                writer.check()
                self._extract(batch, outcomes, extractor, writer, progress)
        if self._conversions:
            counts = ((self._conversions[kind], words) for kind, words in CONVERSIONS.items())
            modes = ", ".join(f"{count} {words}" for count, words in counts if count)
            logger.info("image modes: %s", modes)
        return self.report

    def _extract(
        self, batch: Batch[InputImage], outcomes, extractor, writer, progress: Progress
    ) -> None:
        loaded, boxes = {}, {}
        for image, outcome in zip(batch.images, outcomes, strict=True):
            try:
                network_image = self._checked(image.path, outcome, batch.padded_size)
                if self.boxes is not None:
                    size = network_image.width, network_image.height
                    boxes[image] = self.boxes.of(image.name, *size)
                loaded[image] = network_image
                self._conversions.update(network_image.conversions)
            except ImageReadError as error:
                self._fail(image, error, "read", progress)
            except BoxesError as error:
                self._fail(image, error, "boxes", progress)
        queue = [list(loaded)]
        while queue:
            part = queue.pop(0)
            if len(part) > self._most_at_once:
                middle = len(part) // 2
                queue[:0] = [part[:middle], part[middle:]]
                continue
            if not part:
                continue
            regions = self._regions(
                [loaded[image] for image in part],
                batch.padded_size,
                [boxes[image] for image in part] if self.boxes is not None else None,
                extractor,
            )
            if regions is not None:
                reasons = [self._unusable(r, extractor.precision) for r in regions]
                usable = [not reason for reason in reasons]
                writer.put(list(compress(part, usable)), list(compress(regions, usable)))
                for image, reason in zip(part, reasons, strict=True):
                    if reason:
                        self._fail(image, f"{image.path}: {reason}", "network", progress)
            elif len(part) == 1:
                height, width = batch.padded_size
                error = f"{part[0].path}: out of memory at {width} x {height} network pixels"
                self._fail(part[0], error, "network", progress)
            else:
                self._most_at_once = len(part) // 2
                queue.insert(0, part)

    def _regions(
        self,
        batch: list[NetworkImage],
        padded_size: Size,
        boxes: list[Tensor] | None,
        extractor: RegionFeatureExtractor,
    ) -> list[RegionFeatures] | None:
        """What the extractor gives; None where the memory doesn't do for it."""
        import torch

        from ..utils.devices import is_out_of_memory

        try:
            return extractor.extract_batch(batch, padded_size, boxes)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        # Outside of the handler, since the error's traceback holds on to the tensors.
        self.report.out_of_memory += 1
        gc.collect()
        torch.cuda.empty_cache()
        if len(batch) > 1:
            half = len(batch) // 2
            with interruption.held():
                words = "out of memory with %d images at once: from now on at most %d"
                logger.warning(words, len(batch), half)
        return None

    def _unusable(self, regions: RegionFeatures, precision: str) -> str | None:
        """Why regions can't be stored; None: they can."""
        if reason := regions.not_finite():
            if precision == "fp16":
                reason += " (fp16 overflows at 65504; precision=fp32 may do)"
            return reason
        return self.stores.unfit(regions)

    def _write(
        self, progress: Progress, part: list[InputImage], regions: list[RegionFeatures]
    ) -> None:
        self.before_write(self.report)
        for image, image_regions in zip(part, regions, strict=True):
            self.stores.write(image.name, image_regions)
        self.stores.flush()
        self.report.extracted += len(part)
        for _ in part:
            progress.update()

    def _checked(self, path: str, outcome, padded_size: Size) -> NetworkImage:
        """What was read, unless it isn't, or isn't of the size that was expected."""
        if isinstance(outcome, ImageReadError):
            raise outcome
        own = outcome.padded_size
        larger = any(a > b for a, b in zip(own, padded_size, strict=True))
        if larger or (self.batching == "bucketed" and own != padded_size):
            raise ImageReadError(f"{path}: was exchanged for another image while being read")
        return outcome

    def _warn(self, text: str) -> None:
        with interruption.held():
            logger.warning("%s", text)

    def _fail(self, image: InputImage, error: object, stage: str, progress: Progress) -> None:
        with interruption.held():
            self.report.failed += 1
            reason = str(error).removeprefix(f"{image.path}: ")
            self.failures.add(image.path, image.name, reason, stage)
            logger.warning("failed: %s", error)
            progress.update(failed=True)
        if self.max_failures is not None and self.report.failed > self.max_failures:
            raise TooManyFailures(
                f"{self.report.failed} images failed, more than input.max_failures="
                f"{self.max_failures}; the last: {error}"
            )
