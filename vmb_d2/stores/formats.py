"""The formats by name, where each keeps its images, and telling them apart by content."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py

from ..errors import ConfigError
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
