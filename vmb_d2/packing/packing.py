"""Packing: the images of stores of any format go into one store of any other."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import ConfigError, InputError, OutputError, StoreError
from ..output.union import UnionReader
from ..stores import FORMATS, FeatureReader, FeatureWriter, Format
from ..stores.formats import Differences
from ..structures.class_names import NO_NAMES, ClassNames
from ..structures.regions import RegionFeatures
from ..utils.interruption import check, deferred
from ..utils.progress import progress_of
from ..utils.text import listed

DUPLICATES = ("error", "first")

FLUSH_IMAGES = 64
FLUSH_BYTES = 64 << 20

logger = logging.getLogger(__name__)


@dataclass
class Report:
    """What became of the images: how many were packed and were there before, and by name why the
    others failed, or were left out since the target can't hold them."""

    packed: int = 0
    there_before: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """A store and those of its images that are to be packed."""

    reader: FeatureReader
    names: list[str]

    @property
    def format(self) -> Format:
        return format_of(self.reader)


def format_of(reader: FeatureReader) -> Format:
    """The format that a reader is of."""
    return next(f for f in FORMATS.values() if reader.kind is f.reader)


def list_sources(
    readers: Iterable[FeatureReader], duplicates: str = "error"
) -> tuple[list[Source], int]:
    """The images of each store, none twice, and how many were passed over for that.

    Of a reader over several stores, each is a source. An image of a shard that is also in what the
    shards were merged into, in the same folder, doesn't count as being there twice.

    Args:
        readers: opened stores.
        duplicates: what to do where two stores have an image of the same name: ``"error"``, or
            ``"first"``, which takes that of the first store.

    Raises:
        InputError: a name is there twice.
        StoreError: a store can't be listed.
    """
    seen: set[str] = set()
    sources, repeated, hint = [], [], ""
    for reader in readers:
        parts, copied = [reader], set()
        if isinstance(reader, UnionReader):
            parts = reader.parts
            hint = "; shards share names where images came to the input between their runs"
        for part in parts:
            names = list(part.names())
            repeated += [name for name in names if name in seen and name not in copied]
            sources.append(Source(part, [name for name in names if name not in seen]))
            seen.update(names)
            if isinstance(reader, UnionReader) and part is reader.merged:
                copied.update(names)
    if repeated and duplicates == "error":
        raise InputError(
            f"{len(repeated)} names are in more than one source: {listed(repeated)} "
            f"(--duplicates first takes the first source's{hint})"
        )
    return sources, len(repeated)


def check_target(
    target: Format, path: Path, sources: Sequence[Source], skip: bool = False
) -> dict[str, str]:
    """See that the sources' images can be kept in a format at ``path``.

    Names that the format's own readers take for others are warned of.

    Args:
        skip: leave out images whose names the format can't keep: they are taken off the sources'.

    Returns:
        The names left out, and why.

    Raises:
        ConfigError: the path is a source, or among its files.
        InputError: names under which the format can't keep an image, unless ``skip``.
    """
    for source in sources:
        if _share_files(target, path, source):
            raise ConfigError(f"{path}: shares files with the source {source.reader.path}")
    names = [name for source in sources for name in source.names]
    problems = list(target.writer.problems(names))
    if problems and not skip:
        raise InputError(
            f"{len(problems)} names can't be stored as {target.name}: {_explained(problems)} "
            "(--skip leaves such images out)"
        )
    left_out = target.writer.fewest_problems(names) if problems else {}
    for source in sources:
        source.names[:] = [name for name in source.names if name not in left_out]
    _log_left_out(target, left_out, "left out")
    for line in target.writer.mistaken(name for name in names if name not in left_out):
        logger.warning("%s: %s", target.name, line)
    return left_out


def _log_left_out(target: Format, reasons: Mapping[str, str], what: str) -> None:
    if reasons:
        words = "%s: %d images %s: %s"
        logger.warning(words, target.name, len(reasons), what, _explained(reasons.items()))


def _explained(reasons: Iterable[tuple[str, str]]) -> str:
    return listed(
        [f"{name if name.isprintable() else repr(name)} ({reason})" for name, reason in reasons]
    )


def _share_files(target: Format, path: Path, source: Source) -> bool:
    store = source.reader.path
    same_format = source.format is target
    here, there = path.resolve(), store.resolve()
    same = path.exists() and path.samefile(store)
    inside = here.is_relative_to(there)
    around = there.is_relative_to(here)
    if not source.format.one_file and not same_format:
        # An output folder, where other formats' stores may lie, each in its place.
        alike = not target.one_file and target.writer.suffixes == source.format.writer.suffixes
        in_place = here == there / target.place or there == here / source.format.place
        return alike and (same or ((inside or around) and not in_place))
    return same or inside or (around and same_format)


class Packing:
    """Copies images to a store, one at a time.

    What the target has no place for, and what it lacks, is logged; before the work begins as far as
    the first image of each source shows it.

    Args:
        target: the format to write.
        sources: what to copy, in this order.
        dtype: of the features to write; None for one that loses nothing.
        clip_boxes: whether to clip boxes to the image; None: as the format has it.
        skip: leave out images that the format's own readers can't read.
        class_names: of the sources, for a target that writes them.

    Attributes:
        dtype: of the features that are written.
        report: so far, also where the work was stopped.

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
        self.report = Report()
        self._unreadable: dict[str, str] = {}
        self._differences = Differences(target, self.dtype, self.clips)
        self._differences.log(images)
        if self.clips:
            logger.info("%s: boxes are clipped to the image", target.name)

    def __call__(self, writer: FeatureWriter) -> Report:
        """Copy the images that the writer, of the target's format, hasn't yet, and close it.

        An image that can't be read is reported, and the others go on.

        Raises:
            OutputError: the target can't be written; what was flushed stays.
            StoreError: a source is gone. As after Ctrl-C, what was written stays.
        """
        with deferred():
            try:
                self._copy_all(writer)
            except (StoreError, KeyboardInterrupt):
                _close(writer)
                raise
            except BaseException:
                writer.abandon()
                raise
            _close(writer)
        what = "left out" if self.skip else "that its readers can't read (--skip leaves such out)"
        _log_left_out(self.target, self._unreadable, what)
        return self.report

    def _copy_all(self, writer: FeatureWriter) -> None:
        images = [(source, name) for source in self.sources for name in source.names]
        pending = [(source, name) for source, name in images if name not in writer]
        self.report.there_before = len(images) - len(pending)
        logger.info("%d of %d images to pack", len(pending), len(images))
        waiting = size = 0  # since the last flush
        with progress_of(len(pending)) as progress:
            for count, (source, name) in enumerate(pending, 1):
                check()
                written = self._copy(source, name, writer)
                waiting, size = waiting + bool(written), size + written
                if waiting >= FLUSH_IMAGES or size >= FLUSH_BYTES:
                    writer.flush()
                    waiting = size = 0
                failed = len(self.report.failures)
                progress.show(count - failed, failed)

    def _copy(self, source: Source, name: str, writer: FeatureWriter) -> int:
        """Copy an image. Returns about how many bytes were written, 0 where it isn't."""
        try:
            regions = source.reader.read(name)
        except StoreError as error:
            if not source.reader.path.exists():
                raise StoreError(f"{source.reader.path}: is gone") from error
            self.report.failures[name] = str(error)
            logger.warning("failed: %s", error)
            return 0
        if reason := writer.problem_of(regions):
            self._unreadable[name] = reason
            if self.skip:
                self.report.left_out[name] = reason
                return 0
        self._differences.log([(source.format, regions)])
        writer.write(name, regions.clipped() if self.clips else regions)
        self.report.packed += 1
        classes = 0 if regions.cls_prob is None else regions.cls_prob.shape[1]
        return writer.bytes_per_image(*regions.features.shape, classes, self.dtype.itemsize)


def _close(writer: FeatureWriter) -> None:
    try:
        writer.close()
    except OutputError:
        writer.abandon()
        raise


def _first_images(sources: Iterable[Source]) -> Iterator[tuple[Format, RegionFeatures]]:
    for source in sources:
        for name in source.names:
            with contextlib.suppress(StoreError):  # reported when its turn comes
                yield source.format, source.reader.read(name)
                break
