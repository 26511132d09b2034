"""VL-T5's HDF5 file, with a group an image. It is written through a journal: HDF5 has none."""

from __future__ import annotations

import contextlib
import io
import weakref
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ..errors import OutputError, StoreError, first_line
from ..structures.regions import RegionFeatures
from .base import (
    NOT_UTF8,
    FeatureReader,
    FeatureWriter,
    is_utf8,
    output_errors,
    store_errors,
)
from .fields import regions_of
from .journaled_file import JournaledFile, journal_path

# Of each field, its dataset in the group and the dtype of that.
_DATASETS = {
    "bbox": ("boxes", np.float32),
    "objects": ("obj_id", np.int64),
    "objects_conf": ("obj_conf", np.float32),
    "class_logits": ("logits", np.float32),
    "attrs_id": ("attr_id", np.int64),
    "attrs_conf": ("attr_conf", np.float32),
    "attribute_ids": ("attribute_ids", np.int64),
    "attribute_scores": ("attribute_scores", np.float32),
    "image_width": ("img_w", np.int64),
    "image_height": ("img_h", np.int64),
}
_ATTRIBUTES = ("attrs_id", "attrs_conf")  # of the fields, those that VL-T5 demands
# In this version a group is found through blocks with checksums, of which a new one changes few,
# however many there are. Every HDF5 since 1.8 reads it.
_VERSION = ("v108", "v108")


def _close(h5: h5py.File, file: JournaledFile | None) -> None:
    """Close both, HDF5 first: it still uses its file, and at the interpreter's end crashes it."""
    with contextlib.suppress(Exception):
        h5.close()
    if file is not None:
        file.close()


def _folders_of(name: str) -> list[str]:
    parts = name.split("/")
    return ["/".join(parts[:end]) for end in range(1, len(parts))]


class HDF5Writer(FeatureWriter):
    """Adds groups to an HDF5 file; until a flush they wait in memory.

    What an image lacks is left out, but for attributes, which VL-T5 demands: these are zeros then.

    During a flush there is ``<path>.journal`` beside the file.
    """

    keeps = frozenset({*_DATASETS, "num_boxes"})
    without = dict.fromkeys(_ATTRIBUTES, "as zeros")

    def _open(self) -> None:
        self._file = JournaledFile(self.path)
        self._opened.callback(self._file.close)
        with store_errors(self.path):
            mode = "r+" if self._file.seek(0, 2) else "w"
            self._waits = mode == "w"  # whether HDF5 has what the file on the disk hasn't
            self._h5 = h5py.File(self._file, mode, libver=_VERSION)
        self._opened.callback(weakref.finalize(self, _close, self._h5, self._file))

    @classmethod
    def problems(cls, names):
        names = set(names)
        bad = {name: "a part of it is a dot" for name in names if "." in name.split("/")}
        bad |= {name: NOT_UTF8 for name in names if not is_utf8(name)}
        below = {f: n for n in sorted(names - bad.keys(), reverse=True) for f in _folders_of(n)}
        # At least one image is below each of them, and can be kept where they are left out.
        above = {name: f"{below[name]}, an image too, is below it" for name in names & below.keys()}
        yield from sorted((above | bad).items())

    def __contains__(self, name: str) -> bool:
        with output_errors(self.path), store_errors(self.path):
            return f"{name}/features" in self._h5

    def present(self, names: Iterable[str]) -> set[str]:
        by_folder: dict[str, list[tuple[str, str]]] = {}
        for name in names:
            folder, _, own = name.rpartition("/")
            by_folder.setdefault(folder, []).append((own, name))
        found: set[str] = set()
        with (
            output_errors(self.path),
            store_errors(self.path),
            # HDF5 reads the file itself where it has all: much faster than through Python.
            contextlib.nullcontext(self._h5) if self._waits else _to_look(self.path) as h5,
        ):
            for folder, inside in by_folder.items():
                group = h5.get(folder or "/")
                keys = set(group) if isinstance(group, h5py.Group) else set()
                found.update(n for own, n in inside if own in keys and _is_image(group, own))
        return found

    def write(self, name: str, regions: RegionFeatures) -> None:
        features = self.features_of(regions)
        for above in _folders_of(name):
            if above in self:
                raise OutputError(f"{self.path}: {name!r} is below the image {above!r}")
        self._waits = True
        try:
            chunk = features.shape if features.size else None
            made = {"features": self._h5.create_dataset(None, data=features, chunks=chunk)}
            for field, (dataset, dtype) in _DATASETS.items():
                value = getattr(regions, field)
                if value is None and field in self.without:
                    value = np.zeros(len(regions))
                if value is not None:
                    made[dataset] = self._h5.create_dataset(None, data=np.asarray(value, dtype))
            # The group is made after its datasets: it then grows at the file's end, so that it
            # stays in one piece and is found by one read.
            group = self._h5.create_group(None)
            for dataset, of_group in made.items():
                group[dataset] = of_group
            group.attrs["num_boxes"] = np.int64(regions.num_boxes)
            self._h5[name] = group
        except Exception as error:
            raise OutputError(f"{self.path}: {name!r}: {first_line(error)}") from error

    def flush(self) -> None:
        self._commit(self._h5.flush)

    def close(self) -> None:
        self._commit(self._h5.close)
        self.abandon()

    def _commit(self, flush: Callable[[], None]) -> None:
        with output_errors(self.path, "can't be written"):
            flush()
            self._file.commit()
        self._waits = False


def _is_image(group: h5py.Group, key: str) -> bool:
    try:
        return group.id.links.exists(f"{key}/features".encode())
    except (KeyError, RuntimeError):  # a link that leads to nothing, or elsewhere
        return False


def _to_look(path: Path) -> h5py.File:
    """The file as it is on the disk, with a cache that holds the index of all names."""
    h5 = h5py.File(path, "r", locking=False)
    cache = h5.id.get_mdc_config()
    cache.set_initial_size = True
    cache.initial_size = cache.max_size
    h5.id.set_mdc_config(cache)
    return h5


class HDF5Reader(FeatureReader):
    """Reads such a file, as of its last flush. Of a group only ``features`` has to be there."""

    def _open(self) -> None:
        file = None
        if journal_path(self.path).exists():
            file = JournaledFile(self.path, False)
            self._opened.callback(file.close)
        if file is not None and not file.seek(0, 2):  # the first flush was interrupted
            self._h5 = h5py.File(io.BytesIO(), "w")
        else:
            # Not every network file system has HDF5's locks, and our writer takes none.
            self._h5 = h5py.File(file or self.path, "r", locking=False)
        self._opened.callback(weakref.finalize(self, _close, self._h5, file))

    @classmethod
    def is_store(cls, path: Path) -> bool:
        return path.is_file() and h5py.is_hdf5(path)

    def names(self) -> Iterator[str]:
        with store_errors(self.path):
            yield from _images_below(self._h5.id, "")

    def __contains__(self, name: str) -> bool:
        with store_errors(self.path):
            return is_utf8(name) and f"{name}/features" in self._h5

    def read(self, name: str) -> RegionFeatures:
        if name not in self:
            raise StoreError(f"{self.path}: has no image {name!r}")
        with store_errors(f"{self.path}: {name!r}"):
            group = self._h5[name]
            info: dict[str, Any] = {}
            for field, (dataset, _) in _DATASETS.items():
                if dataset in group:
                    info[field] = group[dataset][()]
            if "attrs_conf" in info and not info["attrs_conf"].any():
                info |= dict.fromkeys(_ATTRIBUTES)
            info["num_boxes"] = group.attrs.get("num_boxes")
            return regions_of(group["features"][()], info)


def _images_below(group: h5py.h5g.GroupID, prefix: str) -> Iterator[str]:
    """The images of a group, and of those in it. Links to elsewhere are not followed."""
    for key in group:
        if group.links.get_info(key).type == h5py.h5l.TYPE_HARD:
            child = h5py.h5o.open(group, key)
            if isinstance(child, h5py.h5g.GroupID):
                name = f"{prefix}{key.decode()}"
                if b"features" in child:
                    yield name
                else:
                    yield from _images_below(child, f"{name}/")
