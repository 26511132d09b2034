"""Finding the stores that a path means, and opening them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import OutputError, StoreError
from ..stores.base import FeatureReader
from ..stores.formats import FORMATS, Format, format_named
from .manifest import Manifest
from .shards import shards_in
from .union import UnionReader


class _Found(NamedTuple):
    format: Format
    path: Path
    of_shard: bool = False


def open_reader(
    path: str | Path,
    format_name: str | None = None,
    *,
    leave_out: tuple[Format, Path] | None = None,
) -> FeatureReader:
    """Open the store at ``path``: a store of any format, or an output folder with one in it.

    In the output folder of a run in shards, or in one feature's folder in that, the stores of all
    shards are read as one; a store of the same format in the folder itself goes before them.

    Args:
        path: a folder or file.
        format_name: which format it has, where there is more than one; None where it shows.
        leave_out: format and place of a store that isn't meant where others are in the folder.

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
    found = _find(path)
    left_out = [store for store in found if leave_out and _is_at(store, *leave_out)]
    if format_name is not None:
        wanted = format_named(format_name)
        found = [store for store in found if store.format is wanted]
    found = [store for store in found if store not in left_out] or found
    if not found:
        kind = format_name or f"of the formats {', '.join(FORMATS)}"
        raise StoreError(f"{path}: no store {kind}")
    names = ", ".join(dict.fromkeys(store.format.name for store in found))
    own = [store.path for store in found if not store.of_shard]
    if "," in names or len(own) > 1:
        raise StoreError(f"{path}: holds several stores ({names}): name one, or its format")
    of_shards = [store.path for store in found if store.of_shard]
    gone = [place for place in of_shards if not _has_content(place)]
    if gone and not (own or left_out):  # once merged, it may be deleted
        raise StoreError(f"{gone[0]}: is missing or empty, but images were stored in it")
    places = own + [place for place in of_shards if place not in gone]
    reader = found[0].format.reader
    if len(places) == 1:
        return reader(places[0])
    return UnionReader(path, reader, places, first_is_merged=bool(own))


def find_stores(path: str | Path) -> list[tuple[Format, Path]]:
    """The stores that ``path`` is: a store itself, or the stores in an output folder.

    A shard's store is there by its place: also where something else is in it, and where nothing is
    although the shard has stored images and the others' stores are there.

    Returns (format, place) of each, by format; of one format, the shards' in their order at last.

    Raises StoreError where the shards can't be listed.
    """
    return [(store.format, store.path) for store in _find(Path(path))]


def sharded_output(path: str | Path) -> tuple[Path, str] | None:
    """The output folder with shards that a path is or, as one feature's folder, is in; and the
    feature, ``"."`` for the output folder. None for any other path.

    Raises StoreError where the shards can't be listed.
    """
    path = Path(path)
    real = path.resolve()
    try:
        if path.is_dir() and any(shards_in(path)):
            return path, "."
        # No feature is called as a store is, which lies below a shard's folder, too.
        if real.is_dir() and real.name not in {f.place for f in FORMATS.values()}:
            folders = (shard.folder(real.parent) for shard in shards_in(real.parent))
            if any((folder / real.name).is_dir() for folder in folders):
                return real.parent, real.name
    except OutputError as error:
        raise StoreError(str(error)) from error
    return None


def features_apart(folder: str | Path) -> list[str]:
    """The features of an output folder that has several, by the manifests; else an empty list."""
    with contextlib.suppress(OutputError):
        for place in (folder, *(shard.folder(folder) for shard in shards_in(folder))):
            if stores := _stores_listed(place):
                features = [store.get("feature") for store in stores]
                return list(dict.fromkeys(filter(None, features)))
    return []


def _find(path: Path) -> list[_Found]:
    places = {(f, path) for f in FORMATS.values()}
    places |= {(f, path / f.place) for f in FORMATS.values()}
    found = [_Found(f, place) for f, place in places if place.exists() and f.is_store(place)]
    found += _stores_of_shards(path)
    return sorted(found, key=lambda store: list(FORMATS).index(store.format.name))


def _stores_of_shards(path: Path) -> Iterator[_Found]:
    """Of the formats with one file. One into which nothing was written yet is none."""
    if (sharded := sharded_output(path)) is None:
        return
    output, feature = sharded
    folders = [shard.folder(output) for shard in shards_in(output)]
    listed = [_stores_listed(folder, with_images=True) for folder in folders]
    expected = {output / store["path"] for stores in listed for store in stores if "path" in store}
    for format_ in filter(lambda f: f.one_file, FORMATS.values()):
        places = [folder / feature / format_.place for folder in folders]
        there = set(filter(_has_content, places))
        if there:
            there |= expected
        yield from (_Found(format_, place, of_shard=True) for place in places if place in there)


def _stores_listed(folder: str | Path, with_images: bool = False) -> list[dict[str, Any]]:
    """The stores of a folder's last run, by its manifest.

    Args:
        with_images: none, unless the run has stored images in them, or found some there.
    """
    with contextlib.suppress(OutputError):
        content = Manifest(folder).content
        if not with_images or content.get("counts", {}).get("done"):
            return content.get("stores", [])
    return []


def _has_content(place: Path) -> bool:
    try:
        files = place.iterdir() if place.is_dir() else [place]
        return any(file.stat().st_size > 0 for file in files)
    except FileNotFoundError:
        return False
    except OSError:
        return True  # which it can't be read for: opening it says so


def _is_at(store: _Found, format_: Format, place: Path) -> bool:
    in_folder = store.format is format_ and not store.of_shard
    return in_folder and place.exists() and place.samefile(store.path)
