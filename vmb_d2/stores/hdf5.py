"""VL-T5's HDF5 file, with a group an image. It is written through a journal: HDF5 has none."""

from __future__ import annotations

import contextlib
import io
import os
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path

import h5py
import numpy as np

from ..errors import OutputError, StoreError, first_line
from ..structures.regions import RegionFeatures
from .base import FeatureReader, FeatureWriter
from .hdf5_lookup import opened_to_look, those_of
from .journal import journal_path
from .journaled_file import JournaledFile
from .mmf import regions_of

# Of each field, its dataset in the group and the dtype of that.
_DATASETS = {
    "bbox": ("boxes", np.float32),
    "objects": ("obj_id", np.int64),
    "objects_conf": ("obj_conf", np.float32),
    "class_logits": ("logits", np.float32),
    "attrs_id": ("attr_id", np.int64),
    "attrs_conf": ("attr_conf", np.float32),
    "image_width": ("img_w", np.int64),
    "image_height": ("img_h", np.int64),
}
# Written as zeros where they are unknown, since VL-T5 asks for them.
_NEEDED = ("attrs_id", "attrs_conf")
# In this version a group is found through blocks with checksums, of which a new one changes few,
# however many there are. Every HDF5 since 1.8 reads it.
_VERSION = ("v108", "v108")


def _let_go(h5: h5py.File, file: JournaledFile | None) -> None:
    """Close both, HDF5 first: it still uses its file, and at the interpreter's end crashes it."""
    with contextlib.suppress(Exception):
        h5.close()
    if file is not None:
        file.close()


class HDF5Writer(FeatureWriter):
    """Adds groups to an HDF5 file; until a flush they wait in memory.

    What an image lacks is left out, but for attributes: these are zeros then.

    Args:
        path: of the file. Beside it there can be ``<path>.journal`` for the time of a flush.
    """

    def __init__(self, path: str | Path, dtype: str = "float32"):
        super().__init__(path, dtype)
        try:
            self._file = JournaledFile(self.path)
        except StoreError as error:
            raise OutputError(str(error)) from error
        except OSError as error:
            raise OutputError(f"{error.filename or path}: {error.strerror}") from error
        mode = "r+" if self._file.seek(0, 2) else "w"
        self._waits = mode == "w"  # whether HDF5 has what the file on the disk hasn't
        try:
            self._h5 = h5py.File(self._file, mode, libver=_VERSION)
        except Exception as error:
            self._file.close()
            raise OutputError(f"{path}: can't be opened: {first_line(error)}") from error
        self._let_go = weakref.finalize(self, _let_go, self._h5, self._file)

    @classmethod
    def problems(cls, names):
        names = set(names)
        for name in sorted(names):
            parts = name.split("/")
            above = {"/".join(parts[:end]) for end in range(1, len(parts))} & names
            if above:
                yield name, f"is below {min(above)}, which is an image too"
            if "." in parts:
                yield name, "a part of it is a dot"
            try:
                name.encode()
            except UnicodeEncodeError:
                yield name, "not UTF-8"

    @classmethod
    def fewest_problems(cls, names):
        names = set(names)
        alone = {n: reason for n in names for _, reason in cls.problems([n])}
        below = {}
        for name in sorted(names - alone.keys(), reverse=True):
            parts = name.split("/")
            below |= {"/".join(parts[:end]): name for end in range(1, len(parts))}
        # Those below it are at least one, and none of them is in another's way but for such.
        above = {name: f"{below[name]}, an image too, is below it" for name in names & below.keys()}
        return above | alone

    @staticmethod
    def bytes_per_image(regions: int, dimension: int, classes: int, itemsize: int) -> int:
        return regions * (dimension * itemsize + 4 * 4 + 2 * (8 + 4)) + 6000

    def __contains__(self, name: str) -> bool:
        try:
            return f"{name}/features" in self._h5
        except Exception as error:  # h5py's errors for damage are of many kinds
            raise OutputError(f"{self.path}: is damaged ({first_line(error)})") from error

    def present(self, names: Iterable[str]) -> set[str]:
        by_folder: dict[str, dict[bytes, str]] = {}
        for name in names:
            folder, _, own = name.rpartition("/")
            by_folder.setdefault(folder, {})[os.fsencode(own)] = name
        found = set()
        try:
            file = contextlib.nullcontext(self._h5) if self._waits else opened_to_look(self.path)
            with file as h5:
                for folder, named in by_folder.items():
                    for key, has_features in those_of(h5, folder, named):
                        if has_features or named[key] in self:
                            found.add(named[key])
        except OutputError:
            raise
        except Exception as error:
            raise OutputError(f"{self.path}: is damaged ({first_line(error)})") from error
        return found

    def write(self, name: str, regions: RegionFeatures) -> None:
        features = self.features_of(regions)
        parts = name.split("/")
        for above in ("/".join(parts[:end]) for end in range(1, len(parts))):
            if above in self:
                raise OutputError(f"{self.path}: {name!r} is below the image {above!r}")
        self._waits = True
        try:
            chunk = features.shape if features.size else None
            made = {"features": self._h5.create_dataset(None, data=features, chunks=chunk)}
            for field, (dataset, dtype) in _DATASETS.items():
                value = getattr(regions, field)
                if value is None and field in _NEEDED:
                    value = np.zeros(len(regions))
                if value is not None:
                    made[dataset] = self._h5.create_dataset(None, data=np.asarray(value, dtype))
            # The group comes after all that it names: nothing is then behind it while it grows, so
            # that it stays in one piece and is found by one read.
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
        self._let_go()

    def abandon(self) -> None:
        self._let_go()

    def _commit(self, flush) -> None:
        try:
            flush()
            self._file.commit()
            self._waits = False
        except OSError as error:
            reason = error.strerror or first_line(error)
            raise OutputError(f"{self.path}: can't be written: {reason}") from error


class HDF5Reader(FeatureReader):
    """Reads such a file, as of its last flush. Of a group only ``features`` has to be there."""

    def __init__(self, path: str | Path):
        super().__init__(path)
        file = None
        try:
            if journal_path(self.path).exists():
                file = JournaledFile(self.path, writable=False)
            if file is not None and not file.seek(0, 2):  # a death came in the first flush
                self._h5 = h5py.File(io.BytesIO(), "w")
            else:
                # Not every network file system has HDF5's locks, and our writer takes none.
                self._h5 = h5py.File(file or self.path, "r", locking=False)
        except Exception as error:
            if file is not None:
                file.close()
            reason = getattr(error, "strerror", None) or first_line(error)
            raise StoreError(f"{path}: can't be read: {reason}") from error
        self._let_go = weakref.finalize(self, _let_go, self._h5, file)

    def names(self) -> Iterator[str]:
        try:
            yield from self._images_below(self._h5.id, "", set())
        except Exception as error:
            raise self._damaged(error) from error

    def _images_below(self, group, prefix: str, seen: set[int]) -> Iterator[str]:
        """The images of a group, and of those in it. Links to elsewhere are not followed."""
        seen.add(h5py.h5o.get_info(group).addr)
        for key in group:
            if group.links.get_info(key).type != h5py.h5l.TYPE_HARD:
                continue
            child = h5py.h5o.open(group, key)
            if not isinstance(child, h5py.h5g.GroupID):
                continue
            name = f"{prefix}{key.decode()}"
            if b"features" in child:
                yield name
            elif h5py.h5o.get_info(child).addr not in seen:
                yield from self._images_below(child, f"{name}/", seen)

    def __len__(self) -> int:
        return sum(1 for _ in self.names())

    def __contains__(self, name: str) -> bool:
        try:
            return f"{name}/features" in self._h5
        except UnicodeEncodeError:
            return False
        except Exception as error:
            raise self._damaged(error) from error

    def read(self, name: str) -> RegionFeatures:
        if name not in self:
            raise StoreError(f"{self.path}: has no image {name!r}")
        try:
            group = self._h5[name]
            info = {}
            for field, (dataset, _) in _DATASETS.items():
                for key in (dataset, field):  # attributes were under the field's name before
                    if key in group:
                        info.setdefault(field, group[key][()])
            if "attrs_conf" in info and not info["attrs_conf"].any():
                info |= dict.fromkeys(_NEEDED)
            info["num_boxes"] = group.attrs.get("num_boxes")
            return regions_of(group["features"][()], info)
        except Exception as error:
            raise StoreError(f"{self.path}: {name!r}: {first_line(error)}") from error

    def _damaged(self, error: Exception) -> StoreError:
        return StoreError(f"{self.path}: is damaged ({first_line(error)})")

    def close(self) -> None:
        self._let_go()
