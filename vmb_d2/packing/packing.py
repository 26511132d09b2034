"""Copying images from stores of any format to a store of another, one image at a time."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..errors import StoreError
from ..stores import FeatureWriter, Format
from ..stores.formats import Differences
from ..structures.class_names import NO_NAMES, ClassNames
from ..structures.regions import RegionFeatures
from ..utils.interruption import check, deferred
from ..utils.progress import progress_of
from .sources import Source, explained

FLUSH_IMAGES = 64

logger = logging.getLogger(__name__)


@dataclass
class PackingResult:
    """What became of the images.

    Attributes:
        packed, there_before: numbers of images.
        failures: by name, why an image couldn't be read.
        left_out: by name, why the target can't hold an image.
    """

    packed: int = 0
    there_before: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


class Packing:
    """Copies the images of several sources to a store.

    It logs what the target has no place for and what the sources lack; before the work, as far as
    the first image of each source shows it.

    Args:
        target: the format to write.
        sources: what to copy, in this order.
        dtype: of the features to write; None: float16 where all sources have that, else float32.
        clip_boxes: whether to clip boxes to the image; None: as the format has it.
        skip: leave out images that the format's own readers can't read.
        class_names: of the sources, for a target that writes them.

    Attributes:
        dtype: of the features that are written.
        result: so far, also where the work was stopped.

    Raises:
        ConfigError: the first images have another number of classes than there are names.
    """

    def __init__(
        self,
        target: Format,
        sources: Sequence[Source],
        dtype: str | None = None,
        clip_boxes: bool | None = None,
        skip: bool = False,
        class_names: ClassNames = NO_NAMES,
    ):
        self.target = target
        self.sources = sources
        self.clips = target.clips(clip_boxes)
        self.skip = skip
        self.result = PackingResult()
        images = list(_first_images(sources))
        for _, regions in images:
            if regions.cls_prob is not None:
                class_names.for_columns(regions.cls_prob.shape[1])
        if dtype is None:
            halves = {regions.features.dtype == np.float16 for _, regions in images}
            dtype = "float16" if halves == {True} else "float32"
        self.dtype = target.writer.dtype_for(dtype)
        if self.dtype != dtype:
            logger.info("%s keeps features as %s only", target.name, self.dtype)
        self._unreadable: dict[str, str] = {}
        self._differences = Differences(target, self.dtype, self.clips)
        self._differences.log(images)
        if self.clips:
            logger.info("%s: boxes are clipped to the image", target.name)

    def run(self, writer: FeatureWriter) -> PackingResult:
        """Copy the images that the writer, of the target's format, doesn't have, and close it.

        An image that can't be read is logged, and the others are copied.

        Raises:
            OutputError: the target can't be written; what was flushed stays.
            StoreError: a source is gone. As after Ctrl-C, what was written stays.
        """
        with deferred():
            try:
                stopped = self._copy_all(writer)
                writer.close()
            except BaseException:
                writer.abandon()
                raise
        if stopped is not None:
            raise stopped
        if self._unreadable:
            what = "left out" if self.skip else "that its readers can't read"
            count, reasons = len(self._unreadable), explained(self._unreadable.items())
            logger.warning("%s: %d images %s: %s", self.target.name, count, what, reasons)
        return self.result

    def _copy_all(self, writer: FeatureWriter) -> BaseException | None:
        """Copy the images. Returns what stopped it between two of them: a signal, or a source that
        is gone."""
        images = [(source, name) for source in self.sources for name in source.names]
        pending = [(source, name) for source, name in images if name not in writer]
        self.result.there_before = len(images) - len(pending)
        logger.info("%d of %d images to pack", len(pending), len(images))
        unflushed = 0
        with progress_of(len(pending)) as progress:
            for count, (source, name) in enumerate(pending, 1):
                try:
                    check()
                    regions = self._read(source, name)
                except (StoreError, KeyboardInterrupt) as error:
                    return error
                if regions is not None:
                    self._differences.log([(source.format, regions)])
                    writer.write(name, regions.clipped() if self.clips else regions)
                    self.result.packed += 1
                    unflushed += 1
                del regions  # one image at a time is in memory
                if unflushed == FLUSH_IMAGES:
                    writer.flush()
                    unflushed = 0
                failed = len(self.result.failures)
                progress.show(count - failed, failed)
        return None

    def _read(self, source: Source, name: str) -> RegionFeatures | None:
        """Read an image; None where it can't be read or is left out."""
        try:
            regions = source.reader.read(name)
        except StoreError as error:
            if not source.reader.path.exists():
                raise StoreError(f"{source.reader.path}: is gone") from error
            self.result.failures[name] = str(error)
            logger.warning("failed: %s", error)
            return None
        if reason := self.target.writer.problem_of(regions):
            self._unreadable[name] = reason
            if self.skip:
                self.result.left_out[name] = reason
                return None
        return regions


def _first_images(sources: Iterable[Source]) -> Iterator[tuple[Format, RegionFeatures]]:
    for source in sources:
        for name in source.names:
            with contextlib.suppress(StoreError):  # reported when its turn comes
                yield source.format, source.reader.read(name)
                break
