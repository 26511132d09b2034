"""The formats by name, where each keeps its images, and telling them apart by content."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py

from ..class_names import ClassNames
from ..errors import ConfigError
from .base import FeatureReader, FeatureWriter
from .folder import FolderWriter, first_file
from .hdf5 import HDF5Reader, HDF5Writer
from .lmdb_store import LMDBReader, LMDBWriter, is_lmdb
from .mmf import MMFReader, MMFWriter
from .npz import NpzReader, NpzWriter, OpenVQAReader, OpenVQAWriter, kind_of
from .oscar import OscarReader, OscarWriter, is_oscar
from .tsv import BUTDReader, BUTDWriter, LXMERTReader, LXMERTWriter
from .tsv_lines import BUTD_COLUMNS, LXMERT_COLUMNS, looks_like
from .uniter import UniterReader, UniterWriter


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

    def open_writer(self, path: Path, dtype: str, class_names: ClassNames) -> FeatureWriter:
        """The writer of a store, which gets the class names if it takes any."""
        options = {"class_names": class_names} if self.writer.takes_class_names else {}
        return self.writer(path, dtype, **options)

    @property
    def one_file(self) -> bool:
        """Whether all images are in one file, rather than each in its own."""
        return not issubclass(self.writer, FolderWriter)


def _is_mmf(path: Path) -> bool:
    return first_file(path, ".npy", but="_info.npy") is not None


def _holds_npz(kind: str, path: Path) -> bool:
    return kind_of(path) == kind


def _is_hdf5(path: Path) -> bool:
    return path.is_file() and h5py.is_hdf5(path)


_is_lxmert = functools.partial(looks_like, LXMERT_COLUMNS)
_is_butd = functools.partial(looks_like, BUTD_COLUMNS)
_is_npz = functools.partial(_holds_npz, "npz")
_is_openvqa = functools.partial(_holds_npz, "openvqa")
_is_uniter = functools.partial(_holds_npz, "uniter")

FORMATS = {
    f.name: f
    for f in (
        Format("mmf", ".", MMFWriter, MMFReader, _is_mmf),
        Format("npz", ".", NpzWriter, NpzReader, _is_npz),
        Format("lmdb", "features.lmdb", LMDBWriter, LMDBReader, is_lmdb),
        Format("lxmert_tsv", "lxmert.tsv", LXMERTWriter, LXMERTReader, _is_lxmert),
        Format("butd_tsv", "butd.tsv", BUTDWriter, BUTDReader, _is_butd),
        Format("hdf5", "features.h5", HDF5Writer, HDF5Reader, _is_hdf5),
        Format("openvqa", "openvqa", OpenVQAWriter, OpenVQAReader, _is_openvqa),
        Format("oscar", "oscar", OscarWriter, OscarReader, is_oscar),
        Format("uniter", "uniter", UniterWriter, UniterReader, _is_uniter),
    )
}


def format_named(name: str) -> Format:
    """The format of that name. Raises ConfigError for any other."""
    if name not in FORMATS:
        raise ConfigError(f"format {name!r} is unknown; valid are {', '.join(FORMATS)}")
    return FORMATS[name]
