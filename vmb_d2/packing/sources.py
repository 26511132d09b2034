"""What is packed: the images of the sources, each once, and the settings that made them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigError, InputError
from ..output.manifest import Manifest, differences, recorded_names
from ..output.union import UnionReader
from ..stores import FORMATS, FeatureReader, Format
from ..utils.text import listed

ERROR = "error"
DUPLICATES = (ERROR, "first")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """A store and those of its images that are to be packed.

    Attributes:
        path: of the store.
        reader: of this store, or of several that it is one of.
        names: of the images.
    """

    path: Path
    reader: FeatureReader
    names: list[str]

    @property
    def format(self) -> Format:
        return next(f for f in FORMATS.values() if f.reader is self.reader.kind)

    def manifest(self) -> Manifest:
        """That of the output folder which the store is in, or is in as one feature's store.

        Raises OutputError where it can't be read.
        """
        depth = len(Path(self.format.place).parts)
        folder = Path(self.path, *[".."] * depth).resolve()
        own = Manifest(folder)
        return own if own.content else Manifest(folder.parent)


def list_sources(readers: Iterable[FeatureReader], duplicates: str = ERROR) -> list[Source]:
    """The stores with their images, none twice. Of shards, each store is a source.

    Where shards were packed into the folder that they are in, their images are also in the store
    there. They aren't duplicates.

    Args:
        readers: opened stores.
        duplicates: what to do with an image whose name an earlier store has: ``"error"``, or
            ``"first"``, which passes over it.

    Raises:
        ConfigError: ``duplicates`` has another value.
        InputError: a name is there twice.
        StoreError: a store can't be listed.
    """
    if duplicates not in DUPLICATES:
        raise ConfigError(field="duplicates", value=duplicates, valid=DUPLICATES)
    seen: set[str] = set()
    sources: list[Source] = []
    repeated: list[str] = []
    for reader in readers:
        merged: set[str] = set()
        for path, names in reader.stores.items():
            repeated += [name for name in names if name in seen and name not in merged]
            sources.append(Source(path, reader, [name for name in names if name not in seen]))
            seen.update(names)
            if isinstance(reader, UnionReader) and path == reader.merged:
                merged = set(names)
    if repeated and duplicates == ERROR:
        raise InputError(
            f"{len(repeated)} names are in more than one source: {listed(repeated)} "
            "(`duplicates`=first takes the first source's)"
        )
    if repeated:
        logger.info("%d images passed over: an earlier source has their name", len(repeated))
    return sources


def check_target(
    target: Format, path: Path, sources: Sequence[Source], skip: bool = False
) -> dict[str, str]:
    """Check that a format can keep the sources' images at ``path``.

    Warn of names that the readers of the format confuse.

    Args:
        skip: take the names that the format can't keep off the sources', as few as will do.

    Returns:
        The names taken off, and why.

    Raises:
        ConfigError: the path is a source, or shares files with one.
        InputError: names that the format can't keep, unless ``skip``.
    """
    for source in sources:
        if _share_files(target, path, source):
            raise ConfigError(f"{path}: shares files with the source {source.path}")
    names = [name for source in sources for name in source.names]
    left_out = dict(target.writer.problems(names))
    if left_out and not skip:
        raise InputError(
            f"{len(left_out)} names can't be stored as {target.name}: {explained(left_out)} "
            "(`skip` leaves such images out)"
        )
    if left_out:
        for source in sources:
            source.names[:] = [name for name in source.names if name not in left_out]
        reasons = explained(left_out)
        logger.warning("%s: %d images left out: %s", target.name, len(left_out), reasons)
    for line in target.writer.mistaken(name for name in names if name not in left_out):
        logger.warning("%s: %s", target.name, line)
    return left_out


def explained(reasons: Mapping[str, str]) -> str:
    """The first names, each with its reason, in one line."""
    return listed([f"{name!r} ({reason})" for name, reason in reasons.items()])


def _share_files(target: Format, path: Path, source: Source) -> bool:
    is_same = path.exists() and path.samefile(source.path)
    here, there = path.resolve(), source.path.resolve()
    if source.format is target:
        return is_same or here.is_relative_to(there) or there.is_relative_to(here)
    if source.format.one_file:
        return is_same or here.is_relative_to(there)
    # A folder of files can hold stores of other formats, unless their files have the same names.
    writers = (target.writer, source.format.writer)
    return is_same and len({getattr(writer, "suffixes", writer) for writer in writers}) == 1


def common_names(paths: Iterable[str | Path]) -> dict[str, str | None]:
    """The files of the names of all sources' classes and attributes, by their records.

    See :func:`vmb_d2.output.manifest.recorded_names`. Raises ConfigError where they differ.
    """
    found = {str(path): recorded_names(path) for path in paths}
    (first, names), *others = found.items()
    for path, own in others:
        if own != names:
            raise ConfigError(
                f"`class_names` is missing: the classes or attributes of {first} and {path} have "
                "different names, by their manifests"
            )
    return names


def common_settings(manifests: Iterable[Manifest], allow_mismatch: bool) -> dict[str, Any]:
    """The settings that all manifests with settings agree in; empty where they don't agree.

    The features' dtype and the clipping of boxes, which packing may change, are None and don't
    count. What is None in one, as where a shard had nothing to extract, is taken from the others.

    Raises ConfigError where they don't agree, unless ``allow_mismatch``.
    """
    unknown = {"dtype": None, "clip_boxes": None}
    common: dict[str, Any] = {}
    for manifest in manifests:
        settings = {**manifest.settings, **unknown} if manifest.settings else {}
        if found := differences(common, settings):
            if allow_mismatch:
                return {}
            raise ConfigError(
                f"{manifest.path.parent} was made with other settings than the sources before it, "
                f"or what is in the target: {'; '.join(found)} (`allow_mismatch` packs them "
                "nevertheless)"
            )
        common |= {key: value for key, value in settings.items() if common.get(key) is None}
    return common
