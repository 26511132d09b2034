"""Finding the stores at a path, and opening them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from ..errors import OutputError, StoreError
from ..stores.base import FeatureReader
from ..stores.formats import FORMATS, Format, format_named
from .manifest import read_manifest
from .shards import shards_in
from .union import UnionReader

Store = tuple[Format, Path]


def open_reader(
    path: str | Path,
    format_name: str | None = None,
    *,
    leave_out: Store | None = None,
) -> FeatureReader:
    """Open the store at ``path``: a store of any format, or an output folder with one in it.

    In the output folder of a run in shards, or in one feature's folder in that, the stores of all
    shards are read as one. A store of the same format in the folder itself goes before them.

    Args:
        path: a folder or file.
        format_name: the store's format, where there are several.
        leave_out: format and path of a store that isn't meant, where there are others.

    Raises:
        ConfigError: no such format.
        StoreError: no store, or several and ``format_name`` doesn't say which; or one is damaged,
            or missing in a shard that has stored images, and wasn't merged.
    """
    path = Path(path)
    if not path.exists():
        raise StoreError(f"{path}: No such file or directory")
    if features := features_apart(path):
        folders = " or ".join(str(path / feature) for feature in features)
        raise StoreError(f"{path}: holds each feature in a folder of its own: take {folders}")
    in_folder, of_shards = list(_stores_in_folder(path)), list(_stores_of_shards(path))
    if format_name is not None:
        wanted = format_named(format_name)
        in_folder = [store for store in in_folder if store[0] is wanted]
        of_shards = [store for store in of_shards if store[0] is wanted]
    left_out = []
    if leave_out:
        place = leave_out[1].resolve()
        left_out = [s for s in in_folder if s[0] is leave_out[0] and s[1].resolve() == place]
    if of_shards or len(in_folder) > len(left_out):
        in_folder = [store for store in in_folder if store not in left_out]
    found = {format_ for format_, _ in in_folder + of_shards}
    formats = [format_ for format_ in FORMATS.values() if format_ in found]
    if not formats:
        kind = format_name or f"of the formats {', '.join(FORMATS)}"
        raise StoreError(f"{path}: no store {kind}")
    if len(formats) > 1 or len(in_folder) > 1:
        names = ", ".join(format_.name for format_ in formats)
        raise StoreError(f"{path}: holds several stores ({names}): name one, or its format")
    gone = [place for _, place in of_shards if not _has_content(place)]
    if gone and not (in_folder or left_out):  # once merged, it may be deleted
        raise StoreError(f"{gone[0]}: is missing or empty, but images were stored in it")
    places = [place for _, place in in_folder + of_shards if place not in gone]
    reader = formats[0].reader
    if len(places) == 1:
        return reader(places[0])
    return UnionReader(path, reader, places, first_is_merged=bool(in_folder))


def sharded_output(path: str | Path) -> tuple[Path, str] | None:
    """The output folder with shards that a path is, or lies in as one feature's folder; and the
    feature, ``"."`` for the output folder. None for any other path.

    Raises StoreError where the shards can't be listed.
    """
    path = Path(path)
    real = path.resolve()
    try:
        if path.is_dir() and any(shards_in(path)):
            return path, "."
        # No feature is named as a store is, which may lie in a shard's folder, too.
        if real.is_dir() and real.name not in {format_.place for format_ in FORMATS.values()}:
            folders = (shard.folder(real.parent) for shard in shards_in(real.parent))
            if any((folder / real.name).is_dir() for folder in folders):
                return real.parent, real.name
    except OutputError as error:
        raise StoreError(str(error)) from error
    return None


def features_apart(folder: str | Path) -> list[str]:
    """The features of an output folder that has several, by its manifests; else an empty list."""
    with contextlib.suppress(OutputError):
        for place in (folder, *(shard.folder(folder) for shard in shards_in(folder))):
            if stores := read_manifest(place)[0].get("stores"):
                features = [store.get("feature") for store in stores]
                return list(dict.fromkeys(filter(None, features)))
    return []


def _stores_in_folder(path: Path) -> Iterator[Store]:
    for format_ in FORMATS.values():
        for place in dict.fromkeys([path, path / format_.place]):
            if place.exists() and format_.reader.is_store(place):
                yield format_, place


def _stores_of_shards(path: Path) -> Iterator[Store]:
    """Of the formats with one file for all images, those that hold something or should."""
    if (sharded := sharded_output(path)) is None:
        return
    output, feature = sharded
    folders = [shard.folder(output) for shard in shards_in(output)]
    contents = [read_manifest(folder)[0] for folder in folders]
    expected = {
        output / store["path"]
        for content in contents
        if content.get("counts", {}).get("done")
        for store in content.get("stores", [])
    }
    for format_ in FORMATS.values():
        if format_.one_file:
            places = [folder / feature / format_.place for folder in folders]
            there = set(filter(_has_content, places))
            if there:
                there |= expected
            yield from ((format_, place) for place in places if place in there)


def _has_content(place: Path) -> bool:
    try:
        files = place.iterdir() if place.is_dir() else [place]
        return any(file.stat().st_size > 0 for file in files)
    except FileNotFoundError:
        return False
    except OSError:
        return True  # opening it says why it can't be read
