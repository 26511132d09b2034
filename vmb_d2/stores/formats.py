"""The formats by name, where each keeps its images, and what each loses of an image."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ..errors import ConfigError
from ..structures.regions import RegionFeatures
from .base import FeatureReader, FeatureWriter
from .fields import FIELDS
from .folder import FolderWriter
from .hdf5 import HDF5Reader, HDF5Writer
from .lmdb_store import VILBERT_PLACE, LMDBReader, LMDBWriter, ViLBERTReader, ViLBERTWriter
from .mmf import MMFReader, MMFWriter
from .npz import NpzReader, NpzWriter, OpenVQAReader, OpenVQAWriter
from .oscar import OscarReader, OscarWriter
from .tsv import BUTDReader, BUTDWriter, LXMERTReader, LXMERTWriter
from .uniter import UniterReader, UniterWriter

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
        name: by which it is chosen.
        place: where the store lies below an output folder; "." for the folder itself.
        writer, reader: of its stores.
        clips_boxes: whether its boxes are clipped to the image, see
            :meth:`vmb_d2.structures.regions.RegionFeatures.clipped`, unless chosen otherwise.
    """

    name: str
    place: str
    writer: type[FeatureWriter]
    reader: type[FeatureReader]
    clips_boxes: bool = False

    @property
    def one_file(self) -> bool:
        """Whether all images are in one file, rather than each in its own."""
        return not issubclass(self.writer, FolderWriter)

    def clips(self, choice: bool | None) -> bool:
        """Whether boxes are clipped, by a choice for all formats; None: by this one's own rule."""
        return self.clips_boxes if choice is None else choice


FORMATS = {
    f.name: f
    for f in (
        Format("mmf", ".", MMFWriter, MMFReader),
        Format("npz", ".", NpzWriter, NpzReader),
        Format("lmdb", "features.lmdb", LMDBWriter, LMDBReader),
        Format("lxmert_tsv", "lxmert.tsv", LXMERTWriter, LXMERTReader, clips_boxes=True),
        Format("butd_tsv", "butd.tsv", BUTDWriter, BUTDReader),
        Format("hdf5", "features.h5", HDF5Writer, HDF5Reader, clips_boxes=True),
        Format("vilbert", VILBERT_PLACE, ViLBERTWriter, ViLBERTReader),
        Format("openvqa", "openvqa", OpenVQAWriter, OpenVQAReader),
        Format("oscar", "oscar", OscarWriter, OscarReader),
        Format("uniter", "uniter", UniterWriter, UniterReader),
    )
}


def format_named(name: str) -> Format:
    """The format of that name. Raises ConfigError for any other."""
    if name not in FORMATS:
        raise ConfigError(f"format {name!r} is unknown", valid=FORMATS)
    return FORMATS[name]


class Differences:
    """Logs what a format has no place for and what it lacks, of each key once.

    Args:
        target: the format to write.
        dtype: of the features to write.
        clips: whether boxes are to be clipped.
    """

    def __init__(self, target: Format, dtype: np.dtype, clips: bool):
        self.target = target
        self.dtype = dtype
        self.clips = clips
        self._said: set[tuple[str, ...]] = set()

    def log(self, images: Iterable[tuple[Format, RegionFeatures]]) -> None:
        """Log what is new in these images, each with the format that it was read from."""
        lost = []
        for source, regions in images:
            if source is not self.target:
                lost += [
                    label
                    for label, field in _contents(regions).items()
                    if field not in self.target.writer.keeps and self._is_new(label)
                ]
                self._log_lacking(source, regions)
            dtype = regions.features.dtype
            if dtype.itemsize > self.dtype.itemsize and self._is_new("features", dtype.name):
                logger.info("features of %s are written as %s", dtype, self.dtype)
        if lost:
            logger.info("%s has no place for %s", self.target.name, ", ".join(lost))

    def _log_lacking(self, source: Format, regions: RegionFeatures) -> None:
        lacking: dict[str, list[str]] = {}  # by what is written instead
        for field in FIELDS:
            instead = self.target.writer.without.get(field)
            if instead and getattr(regions, field) is None and self._is_new(source.name, field):
                lacking.setdefault(instead, []).append(field)
        for instead, fields in lacking.items():
            logger.info("%s has no %s: written %s", source.name, ", ".join(fields), instead)
        no_size = None in (regions.image_width, regions.image_height)
        cant_clip = self.clips and no_size and regions.bbox is not None
        if cant_clip and self._is_new(source.name, "clips"):
            words = "%s has images of unknown size: their boxes can't be clipped"
            logger.warning(words, source.name)

    def _is_new(self, *what: str) -> bool:
        new = what not in self._said
        self._said.add(what)
        return new


def _contents(regions: RegionFeatures) -> dict[str, str]:
    """What an image holds beside its features: a label of each thing, and the field it is in."""
    fields = {key: key for key in FIELDS if getattr(regions, key) is not None}
    if regions.num_boxes == len(regions):  # which the features' shape tells as well
        del fields["num_boxes"]
    further = {f"feature {name}": "further" for name in regions.further}
    return {**fields, **further, **dict.fromkeys(regions.extra, "extra")}
