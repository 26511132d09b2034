"""The formats by name, where each keeps its images, and telling them apart by content."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py

from ..errors import ConfigError, OutputError, StoreError
from ..manifest import Manifest
from .base import FeatureReader, FeatureWriter
from .hdf5 import HDF5Reader, HDF5Writer
from .lmdb_store import LMDBReader, LMDBWriter, is_lmdb
from .mmf import MMFReader, MMFWriter
from .npz import NpzReader, NpzWriter
from .tsv import BUTDReader, BUTDWriter, LXMERTReader, LXMERTWriter
from .tsv_lines import BUTD_COLUMNS, LXMERT_COLUMNS, looks_like


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
        name: as in ``output.format``.
        place: where the store lies below an output folder; "." for the folder itself.
        writer, reader: of its stores.
        is_store: whether a path is a store of this format, by its content.
    """

    name: str
    place: str
    writer: type[FeatureWriter]
    reader: type[FeatureReader]
    is_store: Callable[[Path], bool]

    @property
    def one_file(self) -> bool:
        """Whether all images are in one file, rather than each in its own."""
        return self.place != "."


def _holds(suffix: str, folder: Path, but: str = "\0") -> bool:
    """Whether below a folder is an image's file. The first one is enough."""
    folders = [folder]
    while folders:
        below = []
        with contextlib.suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    below.append(entry.path)
                elif (
                    entry.name.endswith(suffix)
                    and not entry.name.startswith(".")
                    and not entry.name.endswith(but)
                ):
                    return True
        folders += below
    return False


def _is_hdf5(path: Path) -> bool:
    return path.is_file() and h5py.is_hdf5(path)


_is_mmf = functools.partial(_holds, ".npy", but="_info.npy")
_is_npz = functools.partial(_holds, ".npz")
_is_lxmert = functools.partial(looks_like, LXMERT_COLUMNS)
_is_butd = functools.partial(looks_like, BUTD_COLUMNS)

FORMATS = {
    f.name: f
    for f in (
        Format("mmf", ".", MMFWriter, MMFReader, _is_mmf),
        Format("npz", ".", NpzWriter, NpzReader, _is_npz),
        Format("lmdb", "features.lmdb", LMDBWriter, LMDBReader, is_lmdb),
        Format("lxmert_tsv", "lxmert.tsv", LXMERTWriter, LXMERTReader, _is_lxmert),
        Format("butd_tsv", "butd.tsv", BUTDWriter, BUTDReader, _is_butd),
        Format("hdf5", "features.h5", HDF5Writer, HDF5Reader, _is_hdf5),
    )
}


def format_named(name: str) -> Format:
    """The format of that name. Raises ConfigError for any other."""
    if name not in FORMATS:
        raise ConfigError(f"format {name!r} is unknown; valid are {', '.join(FORMATS)}")
    return FORMATS[name]


def find_stores(path: str | Path) -> list[tuple[Format, Path]]:
    """The stores that ``path`` is: a store itself, or the stores in an output folder."""
    path = Path(path)
    places = {(f, path) for f in FORMATS.values()}
    places |= {(f, path / f.place) for f in FORMATS.values()}
    found = [(f, place) for f, place in places if place.exists() and f.is_store(place)]
    return sorted(found, key=lambda store: list(FORMATS).index(store[0].name))


def _features_apart(folder: Path) -> list[str]:
    """The features of an output folder that has several, by its manifest."""
    with contextlib.suppress(OutputError):
        stores = Manifest(folder).content.get("stores", ())
        return list(dict.fromkeys(store["feature"] for store in stores if store.get("feature")))
    return []


def open_reader(path: str | Path, format_name: str | None = None) -> FeatureReader:
    """Open the store at ``path``: a store of any format, or an output folder with one in it.

    Args:
        path: a folder or file.
        format_name: which format it has, where there is more than one; None where it shows.

    Raises:
        ConfigError: no such format.
        StoreError: no store, or several and ``format_name`` doesn't say which.
    """
    if not Path(path).exists():
        raise StoreError(f"{path}: No such file or directory")
    if features := _features_apart(Path(path)):
        folders = " or ".join(str(Path(path) / feature) for feature in features)
        raise StoreError(f"{path}: holds each feature in a folder of its own: take {folders}")
    found = find_stores(path)
    if format_name is not None:
        wanted = format_named(format_name)
        found = [store for store in found if store[0] is wanted]
    if not found:
        kind = format_name or f"of the formats {', '.join(FORMATS)}"
        raise StoreError(f"{path}: no store {kind}")
    if len(found) > 1:
        names = ", ".join(f.name for f, _ in found)
        raise StoreError(f"{path}: holds several stores ({names}): name one, or its format")
    ((format_, place),) = found
    return format_.reader(place)
