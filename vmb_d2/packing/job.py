"""Packing stores into an output folder: compared, locked, and recorded in its manifest."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path

from ..errors import ConfigError, OutputError
from ..output.lock import sole_use
from ..output.manifest import Manifest
from ..output.open_stores import features_apart, open_reader, sharded_output
from ..output.shards import shards_in
from ..status import RUNNING, UNFINISHED, read_status
from ..stores import format_named
from ..structures.class_names import NO_NAMES, NONE, ClassNames
from ..utils.text import listed
from .packing import PackingResult, copy_images, first_differences
from .sources import ERROR, check_target, common_names, common_settings, list_sources

logger = logging.getLogger(__name__)


def pack(
    sources: Sequence[str | Path],
    target_format: str,
    folder: str | Path,
    *,
    source_format: str | None = None,
    duplicates: str = ERROR,
    dtype: str | None = None,
    clip_boxes: bool | None = None,
    allow_mismatch: bool = False,
    skip: bool = False,
    class_names: ClassNames = NO_NAMES,
) -> PackingResult:
    """Copy the images of stores of any format to one store of another.

    Args:
        sources: stores, or output folders with a store in them, or with one of each shard. Where
            that is the folder to pack into, what was packed there before isn't a source.
        target_format: the format to write, a name in :data:`vmb_d2.stores.FORMATS`.
        folder: the output folder; created where there is none.
        source_format: the sources' format, where a folder has stores of several.
        duplicates: see :func:`vmb_d2.packing.sources.list_sources`.
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
        for path in sources:
            reader = open_reader(path, source_format, leave_out=(target, place))
            readers.append(stack.enter_context(reader))
            _warn_of_unfinished(path)
        stores = list_sources(readers, duplicates)
        left_out = check_target(target, place, stores, skip)
        manifest = Manifest(folder)
        origins = [store.manifest() for store in stores]
        settings = common_settings([manifest, *origins], allow_mismatch)
        if settings.get("regions", {}).get("background"):
            class_names = dataclasses.replace(class_names, with_background=True)
        model = settings.get("model") or {}
        if "num_classes" in model:
            class_names.require(model["num_classes"] - 1, model.get("num_attributes", 0))
        locked = _folders_to_lock(folder)
        there = (Manifest(locked[0]).clip_boxes | manifest.clip_boxes).get(target.name)
        clips = target.clips(there if clip_boxes is None else clip_boxes)
        if there not in (None, clips) and not allow_mismatch:
            raise ConfigError(
                f"{place}: the boxes that are there are{'' if there else ' not'} clipped to the "
                "image; `allow_mismatch` packs others nevertheless"
            )
        differences = first_differences(target, stores, dtype, clips, class_names)
        pairs = zip(stores, origins, strict=True)
        were_clipped = {bool(m.clip_boxes.get(s.format.name)) for s, m in pairs} or {False}
        clipped = {True} if clips else were_clipped
        if len(clipped | {there} - {None}) > 1:
            logger.warning("%s: some boxes are clipped to the image already, others are not", place)
        if settings:
            settings["dtype"] = differences.dtype.name
            del settings["clip_boxes"]  # of the sources; the manifest has the store's own
        if manifest.settings and any(shards_in(folder)):
            settings = manifest.settings  # of the shards, to which others may still be added
        store = {"format": target.name, "feature": None, "path": target.place}
        names = class_names.files()
        if not target.writer.needs_class_names:
            with contextlib.suppress(ConfigError):  # names that differ have no part in it
                recorded = common_names(sources).items()
                names = {key: file for key, file in recorded if file not in (None, NONE)}
        others = [s for s in manifest.content.get("stores", ()) if {**s, **store} != s]
        content = {
            "packed_from": [str(source) for source in sources],
            "settings": settings,
            "stores": [*others, {**store, "boxes_clipped": True in clipped, **names}],
        }
        for used in locked:
            stack.enter_context(sole_use(used))
        result = PackingResult(left_out=left_out)
        with manifest.recorded(lambda: (result.counts(), {})):
            manifest.begin({"program": "pack", "format": target.name}, **content)
            writer = target.writer(place, differences.dtype.name, class_names)
            copy_images(stores, writer, differences, result, skip)
        return result


def _warn_of_unfinished(source: str | Path) -> None:
    """Log which shards of a source aren't finished. Raises StoreError."""
    if sharded := sharded_output(source):
        with contextlib.suppress(OutputError):  # no shard has a record
            parts = read_status(sharded[0]).of(RUNNING, *UNFINISHED)
            shards = [f"{part.name} ({part.state})" for part in parts if part.shard]
            if shards:
                logger.warning("%s: shards that are not finished: %s", source, listed(shards))


def _folders_to_lock(folder: Path) -> list[Path]:
    """The output folder; before it the one in which it is a feature's folder, where it is one."""
    run_folder = folder.resolve().parent
    is_feature = folder.resolve().name in features_apart(run_folder)
    return [run_folder, folder] if is_feature else [folder]
