"""Packing stores into an output folder: compared, locked, and recorded in its manifest."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import ConfigError, OutputError
from ..output.lock import sole_use
from ..output.manifest import Manifest, differences
from ..output.open_stores import features_apart, open_reader, sharded_output
from ..output.shards import shards_in
from ..status import UNFINISHED, read_status
from ..status.part import RUNNING
from ..stores import FeatureReader, format_named
from ..structures.class_names import NO_NAMES, ClassNames
from ..utils.text import listed
from .packing import Packing, Report, Source, check_target, format_of, list_sources

logger = logging.getLogger(__name__)


def pack(
    sources: Sequence[str | Path],
    target_format: str,
    folder: str | Path,
    *,
    source_format: str | None = None,
    duplicates: str = "error",
    dtype: str | None = None,
    clip_boxes: bool | None = None,
    allow_mismatch: bool = False,
    skip: bool = False,
    class_names: ClassNames = NO_NAMES,
) -> Report:
    """Copy the images of stores of any format to one store of another.

    Args:
        sources: stores, or output folders with a store in them, or with one of each shard. Where
            that is the folder to pack into, what was packed there before is no source.
        target_format: the format to write, a name in :data:`vmb_d2.stores.FORMATS`.
        folder: the output folder; it is made where it isn't there.
        source_format: the sources' format, where a folder has stores of several.
        duplicates: see :func:`vmb_d2.packing.packing.list_sources`.
        dtype: of the features; None for one that loses nothing.
        clip_boxes: whether to clip boxes to the image; None: as in the format's store that is
            there, or in those of the folder's shards; else as the format has it.
        allow_mismatch: also pack sources that were made with different settings.
        skip: leave out images that the format can't hold.
        class_names: of the sources, for a format that writes them. Whether the background was
            extracted is taken from the sources' settings, where they say it.

    Raises:
        ConfigError, InputError, StoreError: before anything is written; StoreError also where a
            source vanishes.
        OutputError: the target can't be written. What was flushed stays.
    """
    target, folder = format_named(target_format), Path(folder)
    place = folder / target.place
    with contextlib.ExitStack() as stack:
        readers = []
        for source in sources:
            reader = open_reader(source, source_format, leave_out=(target, place))
            readers.append(stack.enter_context(reader))
            _warn_of_unfinished(source)
        listed_sources, passed_over = list_sources(readers, duplicates)
        if passed_over:
            logger.info("%d images passed over: an earlier source has their name", passed_over)
        left_out = check_target(target, place, listed_sources, skip)
        manifest = Manifest(folder)
        manifests = [manifest, *(manifest_of(source.reader) for source in listed_sources)]
        settings = common_settings(manifests, allow_mismatch)
        if settings.get("regions", {}).get("background"):
            class_names = dataclasses.replace(class_names, with_background=True)
        written = _folders_written(folder)
        there = (Manifest(written[0]).clip_boxes | manifest.clip_boxes).get(target.name)
        choice = there if clip_boxes is None else clip_boxes
        packing = Packing(
            target,
            listed_sources,
            dtype,
            clip_boxes=choice,
            skip=skip,
            class_names=class_names,
        )
        packing.report.left_out.update(left_out)
        if there not in (None, packing.clips) and not allow_mismatch:
            is_not = "" if there else " not"
            raise ConfigError(
                f"{place}: the boxes that are there are{is_not} clipped to the image: leave out "
                "--clip-boxes, or take another folder (--allow-mismatch packs them nevertheless)"
            )
        clipped = {True} if packing.clips else _clipped(listed_sources, manifests[1:])
        if len(clipped | {there} - {None}) > 1:
            logger.warning(
                "%s: some boxes are clipped to the image already, others not (--clip-boxes true "
                "clips all)",
                place,
            )
        if settings:
            settings["dtype"] = packing.dtype.name
            del settings["clip_boxes"]  # of the sources; the store says its own
        if manifest.settings and any(shards_in(folder)):
            settings = manifest.settings  # those of the shards, which others may still join
        store = {"format": target.name, "feature": None, "path": target.place}
        stores = manifest.content.get("stores", ())
        others = [other for other in stores if {**other, **store} != other]
        content = {
            "packed_from": [str(source) for source in sources],
            "settings": settings,
            "stores": [*others, {**store, "boxes_clipped": True in clipped}],
        }
        for used in written:
            stack.enter_context(sole_use(used))
        with manifest.recorded(lambda: _outcome(packing.report)):
            manifest.begin({"program": "pack", "format": target.name}, **content)
            packing(target.open_writer(place, packing.dtype.name, class_names))
    return packing.report


def _warn_of_unfinished(source: str | Path) -> None:
    """Say which shards of a source aren't finished. Raises StoreError."""
    sharded = sharded_output(source)
    parts = []
    if sharded:
        with contextlib.suppress(OutputError):  # no shard has anything in writing
            parts = read_status(sharded[0]).of(RUNNING, *UNFINISHED)
    shards = [f"{part.name} ({part.state})" for part in parts if part.shard]
    if shards:
        logger.warning("%s: shards that are not finished: %s", source, listed(shards))


def _folders_written(folder: Path) -> list[Path]:
    """The output folder, and first the one that it lies in as a feature's folder."""
    run_folder = folder.resolve().parent
    apart = folder.resolve().name in features_apart(run_folder)
    return [run_folder, folder] if apart else [folder]


def manifest_of(reader: FeatureReader) -> Manifest:
    """The manifest of the run that made a store: in its output folder, or the one above where the
    store is that of one of several features. Raises OutputError where it can't be read."""
    place = Path(format_of(reader).place)
    folder = Path(reader.path, *[".."] * len(place.parts)).resolve()
    own = Manifest(folder)
    return own if own.content else Manifest(folder.parent)


def _clipped(sources: Iterable[Source], manifests: Iterable[Manifest]) -> set[bool]:
    """Whether the sources' boxes are clipped to the image, as far as their manifests say it."""
    pairs = zip(sources, manifests, strict=True)
    return {m.clip_boxes.get(source.format.name) for source, m in pairs} - {None} or {False}


def common_settings(manifests: Iterable[Manifest], allow_mismatch: bool) -> dict[str, Any]:
    """The settings of the manifests that have some, where they agree; else nothing is known.

    They agree whatever the features' dtype and the boxes' clipping, which packing may change; these
    are None. What one doesn't know, such as a shard without an image to extract, is taken from the
    others.

    Raises ConfigError where they don't agree, unless ``allow_mismatch``.
    """
    changed = {"dtype": None, "clip_boxes": None}
    known = {m.path.parent: {**m.settings, **changed} for m in manifests if m.settings}
    common: dict[str, Any] = {}
    agreed = True
    for folder, settings in known.items():
        if differences(common, settings):
            if not allow_mismatch:
                raise _disagreement(folder, known)
            agreed = False
        common |= {key: value for key, value in settings.items() if common.get(key) is None}
    return common if agreed else {}


def _disagreement(folder: Path, known: Mapping[Path, Mapping[str, Any]]) -> ConfigError:
    """The error for the first folder whose settings differ from one's before."""
    others = ((other, differences(known[other], known[folder])) for other in known)
    first, found = next((other, found) for other, found in others if found)
    return ConfigError(
        f"{folder} was made with other settings than {first}: {'; '.join(found)} "
        "(--allow-mismatch packs them nevertheless)"
    )


def _outcome(report: Report) -> tuple[dict[str, int], dict[str, Any]]:
    counts = {
        "packed": report.packed,
        "there_before": report.there_before,
        "failed": len(report.failures),
    }
    if report.left_out:
        counts["left_out"] = len(report.left_out)
    return counts, {}
