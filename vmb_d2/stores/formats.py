"""The formats by name, where each keeps its images, and telling them apart by content."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py

from ..errors import ConfigError
from ..structures.class_names import ClassNames
from .base import FeatureReader, FeatureWriter
from .folder import FolderWriter, first_file
from .hdf5 import HDF5Reader, HDF5Writer
from .lmdb_store import (
    VILBERT_PLACE,
    LMDBReader,
    LMDBWriter,
    ViLBERTReader,
    ViLBERTWriter,
    lmdb_kind,
)
from .mmf import MMFReader, MMFWriter
from .npz import NpzReader, NpzWriter, OpenVQAReader, OpenVQAWriter, npz_kind
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
        clips_boxes: whether its boxes are clipped to the image, see
            :meth:`vmb_d2.structures.regions.RegionFeatures.clipped`, unless chosen otherwise.
    """

    name: str
    place: str
    writer: type[FeatureWriter]
    reader: type[FeatureReader]
    is_store: Callable[[Path], bool]
    clips_boxes: bool = False

    def open_writer(self, path: Path, dtype: str, class_names: ClassNames) -> FeatureWriter:
        """The writer of a store, which gets the class names if it takes any."""
        options = {"class_names": class_names} if self.writer.takes_class_names else {}
        return self.writer(path, dtype, **options)

    @property
    def one_file(self) -> bool:
        """Whether all images are in one file, rather than each in its own."""
        return not issubclass(self.writer, FolderWriter)

    def clips(self, choice: bool | None) -> bool:
        """Whether boxes are clipped, by a choice for all formats; None: by this one's own rule."""
        return self.clips_boxes if choice is None else choice


def _is_mmf(path: Path) -> bool:
    return first_file(path, ".npy", but="_info.npy") is not None


def _is_kind(kind_of: Callable[[Path], str | None], name: str, path: Path) -> bool:
    return kind_of(path) == name


def _is_hdf5(path: Path) -> bool:
    return path.is_file() and h5py.is_hdf5(path)


_is_lxmert = functools.partial(looks_like, LXMERT_COLUMNS)
_is_butd = functools.partial(looks_like, BUTD_COLUMNS)
_is_npz = functools.partial(_is_kind, npz_kind, "npz")
_is_openvqa = functools.partial(_is_kind, npz_kind, "openvqa")
_is_uniter = functools.partial(_is_kind, npz_kind, "uniter")
_is_lmdb = functools.partial(_is_kind, lmdb_kind, "lmdb")
_is_vilbert = functools.partial(_is_kind, lmdb_kind, "vilbert")

FORMATS = {
    f.name: f
    for f in (
        Format("mmf", ".", MMFWriter, MMFReader, _is_mmf),
        Format("npz", ".", NpzWriter, NpzReader, _is_npz),
        Format("lmdb", "features.lmdb", LMDBWriter, LMDBReader, _is_lmdb),
        Format("lxmert_tsv", "lxmert.tsv", LXMERTWriter, LXMERTReader, _is_lxmert, True),
        Format("butd_tsv", "butd.tsv", BUTDWriter, BUTDReader, _is_butd),
        Format("hdf5", "features.h5", HDF5Writer, HDF5Reader, _is_hdf5, True),
        Format("vilbert", VILBERT_PLACE, ViLBERTWriter, ViLBERTReader, _is_vilbert),
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
