"""Copying images from stores of any format to a store of another, one image at a time."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..errors import StoreError
from ..stores import FeatureWriter, Format
from ..stores.formats import Differences
from ..structures.class_names import ClassNames
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

    def counts(self) -> dict[str, int]:
        """For the manifest."""
        failed, left_out = len(self.failures), len(self.left_out)
        counts = {"packed": self.packed, "there_before": self.there_before, "failed": failed}
        return {**counts, "left_out": left_out} if left_out else counts


def first_differences(
    target: Format,
    sources: Sequence[Source],
    dtype: str | None,
    clips: bool,
    class_names: ClassNames,
) -> Differences:
    """Log what the target has no place for and what the sources lack, by the first image of each.

    Args:
        target: the format to write.
        sources: what is to be copied.
        dtype: of the features to write; None: float16 where all sources have that, else float32.
        clips: whether to clip boxes to the image.
        class_names: of the sources.

    Returns:
        Differences, which log those of further images, with the dtype that is written.

    Raises:
        ConfigError: an image has another number of classes than there are names.
    """
    images = []
    for source in sources:
        for name in source.names:
            with contextlib.suppress(StoreError):  # reported when its turn comes
                images.append((source.format, source.reader.read(name)))
                break
    for _, regions in images:
        if regions.cls_prob is not None:
            class_names.for_columns(regions.cls_prob.shape[1])
    if dtype is None:
        halves = {regions.features.dtype == np.float16 for _, regions in images}
        dtype = "float16" if halves == {True} else "float32"
    differences = Differences(target, target.writer.dtype_for(dtype), clips)
    if differences.dtype != dtype:
        logger.info("%s keeps features as %s only", target.name, differences.dtype)
    differences.log(images)
    if clips:
        logger.info("%s: boxes are clipped to the image", target.name)
    return differences


def copy_images(
    sources: Sequence[Source],
    writer: FeatureWriter,
    differences: Differences,
    result: PackingResult,
    skip: bool,
) -> None:
    """Copy the images that the writer's store doesn't have, in order, and close the writer.

    An image that can't be read is logged, and the others are copied.

    Args:
        sources: what to copy.
        writer: of the target's store.
        differences: logs what the target has no place for, and tells whether to clip boxes.
        result: to fill in, also where the work is stopped.
        skip: leave out images that the target format's own readers can't read.

    Raises:
        OutputError: the target can't be written; what was flushed stays.
        StoreError: a source is gone. As after Ctrl-C, what was written stays.
    """
    images = [(source, name) for source in sources for name in source.names]
    pending = [(source, name) for source, name in images if name not in writer]
    result.there_before = len(images) - len(pending)
    logger.info("%d of %d images to pack", len(pending), len(images))
    unreadable: dict[str, str] = {}
    with deferred(), progress_of(len(pending)) as progress:
        try:
            for count, (source, name) in enumerate(pending, 1):
                try:
                    check()
                    regions = _read(source, name, result)
                except (StoreError, KeyboardInterrupt):  # between two images
                    writer.flush()
                    raise
                if regions is not None and (reason := writer.problem_of(regions)):
                    unreadable[name] = reason
                if regions is not None and not (skip and name in unreadable):
                    differences.log([(source.format, regions)])
                    writer.write(name, regions.clipped() if differences.clips else regions)
                    result.packed += 1
                del regions  # one image at a time is in memory
                if count % FLUSH_IMAGES == 0:
                    writer.flush()
                progress.show(count - len(result.failures), len(result.failures))
            writer.close()
        except BaseException:
            writer.abandon()
            raise
    if unreadable:
        what = "left out" if skip else "that its readers can't read"
        words = "%s: %d images %s: %s"
        logger.warning(words, differences.target.name, len(unreadable), what, explained(unreadable))
    if skip:
        result.left_out.update(unreadable)


def _read(source: Source, name: str, result: PackingResult) -> RegionFeatures | None:
    """Read an image; None where it can't be read. Raises StoreError where its source is gone."""
    try:
        return source.reader.read(name)
    except StoreError as error:
        if not source.path.exists():
            raise StoreError(f"{source.path}: is gone") from error
        result.failures[name] = str(error)
        logger.warning("failed: %s", error)
        return None
