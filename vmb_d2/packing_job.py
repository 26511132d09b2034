"""Packing stores into an output folder: compared, locked, and recorded in its manifest."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from .errors import ConfigError
from .manifest import Manifest, differences
from .output_folder import sole_use
from .packing import Packing, Report, check_target, format_of, list_sources
from .stores import FeatureReader, format_named, open_reader

logger = logging.getLogger(__name__)


def pack(
    sources: Sequence[str | Path],
    target_format: str,
    folder: str | Path,
    *,
    source_format: str | None = None,
    duplicates: str = "error",
    dtype: str | None = None,
    allow_mismatch: bool = False,
) -> Report:
    """Copy the images of stores of any format to one store of another.

    Args:
        sources: stores, or output folders with a store in them.
        target_format: the format to write, a name in :data:`vmb_d2.stores.FORMATS`.
        folder: the output folder; it is made where it isn't there.
        source_format: the sources' format, where a folder has stores of several.
        duplicates: see :func:`vmb_d2.packing.list_sources`.
        dtype: of the features; None for one that loses nothing.
        allow_mismatch: also pack sources that were made with different settings.

    Raises:
        ConfigError, InputError, StoreError: before anything is written; StoreError also where a
            source vanishes.
        OutputError: the target can't be written. What was flushed stays.
    """
    target, folder = format_named(target_format), Path(folder)
    place = folder / target.place
    with contextlib.ExitStack() as stack:
        readers = [stack.enter_context(open_reader(s, source_format)) for s in sources]
        listed_sources, passed_over = list_sources(readers, duplicates)
        if passed_over:
            logger.info("%d images passed over: an earlier source has their name", passed_over)
        check_target(target, place, listed_sources)
        manifest = Manifest(folder)
        settings = common_settings([manifest, *map(manifest_of, readers)], allow_mismatch)
        packing = Packing(target, listed_sources, dtype)
        if settings:
            settings["dtype"] = packing.dtype.name
        store = {"format": target.name, "feature": None, "path": target.place}
        others = [other for other in manifest.content.get("stores", ()) if other != store]
        content = {
            "packed_from": [str(source) for source in sources],
            "settings": settings,
            "stores": [*others, store],
        }
        stack.enter_context(sole_use(folder))
        with manifest.recorded(lambda: _outcome(packing.report)):
            manifest.begin({"program": "pack"}, **content)
            packing(target.writer(place, packing.dtype.name))
    return packing.report


def manifest_of(reader: FeatureReader) -> Manifest:
    """The manifest of the run that made a store: in its output folder, or the one above where the
    store is that of one of several features. Raises OutputError where it can't be read."""
    place = Path(format_of(reader).place)
    folder = Path(reader.path, *[".."] * len(place.parts)).resolve()
    own = Manifest(folder)
    return own if own.content else Manifest(folder.parent)


def common_settings(manifests: Iterable[Manifest], allow_mismatch: bool) -> dict[str, Any]:
    """The settings of the manifests that have some, where they agree; else nothing is known.

    They agree whatever the features' dtype, which packing may change; it is None.

    Raises ConfigError where they don't agree, unless ``allow_mismatch``.
    """
    known = {m.path.parent: {**m.settings, "dtype": None} for m in manifests if m.settings}
    first, *others = known or [None]
    agreed = True
    for other in others:
        if found := differences(known[first], known[other]):
            if not allow_mismatch:
                raise ConfigError(
                    f"{other} was made with other settings than {first}: "
                    f"{'; '.join(found)} (--allow-mismatch packs them nevertheless)"
                )
            agreed = False
    return known[first] if first and agreed else {}


def _outcome(report: Report) -> tuple[dict[str, int], dict[str, Any]]:
    counts = {
        "packed": report.packed,
        "there_before": report.there_before,
        "failed": len(report.failures),
    }
    return counts, {}
