"""The LMDBs of MMF and ViLBERT: an image a key, its value a pickled dict; ``keys`` lists them."""

from __future__ import annotations

import base64
import contextlib
import errno
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import lmdb
import numpy as np

from ..errors import OutputError, StoreError, first_line
from ..structures.regions import RegionFeatures
from ..utils import safe_pickle as pickles
from ..utils.files import check_in_place, sync_folder
from ..utils.text import listed
from .base import FeatureReader, FeatureWriter
from .mmf import info_of, regions_of

KEYS = b"keys"  # the key under which their readers find all others
LONGEST_KEY = 511  # bytes, as LMDB is usually built
VILBERT_PLACE = "vilbert.lmdb"
MAP_SIZE = 1 << 30  # to begin with
_MAGIC = 0xBEEFC0DE.to_bytes(4, "little")  # at byte 16 of the file
# LMDB doesn't write pages that a transaction takes and frees, so some can lack at a file's end.
_SLACK_SHARE, _MOST_SLACK = 0.01, 64


def data_file(path: Path) -> Path:
    """The file of an LMDB, which is a folder or a file itself."""
    return path / "data.mdb" if path.is_dir() else path


def lmdb_kind(path: Path) -> str | None:
    """The format of the LMDB at a path: "lmdb" or "vilbert"; None: there is no LMDB.

    The first image tells; without one that can be read, it is left to the path's name.
    """
    try:
        with open(data_file(path), "rb") as file:
            if file.read(20)[16:] != _MAGIC:
                return None
        with LMDBReader(path) as reader:
            for name in itertools.islice(reader.names(), 1):
                return _kind_of_item(reader.item(name))
    except OSError:
        return None
    except StoreError:
        pass
    return "vilbert" if path.name == VILBERT_PLACE else "lmdb"


def _kind_of_item(item: Mapping[str, Any]) -> str:
    is_mmf = "feature_path" in item or "bbox" in item
    return "vilbert" if not is_mmf and ("boxes" in item or "image_id" in item) else "lmdb"


def _check_length(environment: lmdb.Environment, file: Path) -> None:
    """Raise StoreError where the file is cut: reading what lacks would end the process."""
    pages = environment.info()["last_pgno"] + 1
    pages -= min(int(pages * _SLACK_SHARE), _MOST_SLACK)
    if file.stat().st_size < pages * environment.stat()["psize"]:
        raise StoreError(f"{file}: ends too early")


def _looked_up_first(name: str) -> str | None:
    """The key that MMF's reader tries before the name itself."""
    try:
        return str(int(name.split("_")[-1]))
    except ValueError:
        return None


class LMDBWriter(FeatureWriter):
    """Writes MMF's LMDB, in one transaction a flush; until then images wait in memory.

    The list of keys, without which MMF can't read the store, is written by :meth:`close`.

    Args:
        map_size: bytes that the LMDB can have at first. It grows as needed.
    """

    def __init__(self, path: str | Path, dtype: str = "float32", map_size: int = MAP_SIZE):
        super().__init__(path, dtype)
        self._waiting: dict[bytes, bytes] = {}
        self._environment = None
        try:
            # One writer at a time is the caller's duty. LMDB's own lock file keeps the locks of a
            # process that died on another machine.
            options = {"lock": False, "readahead": False}
            self._environment = lmdb.open(str(path), map_size=map_size, **options)
            _check_length(self._environment, self.path / "data.mdb")
            self._opened = os.stat(self.path / "data.mdb")
            sync_folder(self.path)
            sync_folder(self.path.parent)
        except StoreError as error:
            self.abandon()
            raise OutputError(str(error)) from error
        except OSError as error:
            self.abandon()
            raise OutputError(f"{path}: {error.strerror}") from error
        except lmdb.Error as error:
            reason = first_line(error).removeprefix(f"{path}: ")
            raise OutputError(f"{path}: can't be opened: {reason}") from error

    @classmethod
    def problems(cls, names):
        for name in names:
            key = os.fsencode(name)
            if key == KEYS:
                yield name, "the list of images is kept under this key"
            if len(key) > LONGEST_KEY:
                yield name, f"longer than the {LONGEST_KEY} bytes that a key can have"

    @classmethod
    def mistaken(cls, names):
        names = set(names)
        taken = {name: _looked_up_first(name) for name in names}
        wrong = [n for n, other in sorted(taken.items()) if other != n and other in names]
        if wrong:
            examples = listed([f"{taken[name]} for {name}" for name in wrong])
            yield (
                f"{len(wrong)} names for which MMF's reader takes another image, since it looks up "
                f"the number after a name's last _ first: {examples}"
            )

    @staticmethod
    def bytes_per_image(regions: int, dimension: int, classes: int, itemsize: int) -> int:
        return regions * (dimension * itemsize + classes * 4 + 4 * 4 + 8) + 3500

    def __contains__(self, name: str) -> bool:
        return bool(self.present([name]))

    def present(self, names: Iterable[str]) -> set[str]:
        found = set()
        # With buffers nothing is copied.
        with self._errors(), self._environment.begin(buffers=True) as transaction:
            for name in names:
                key = os.fsencode(name)
                if key in self._waiting or (key != KEYS and transaction.get(key) is not None):
                    found.add(name)
        return found

    def write(self, name: str, regions: RegionFeatures) -> None:
        self._waiting[os.fsencode(name)] = pickles.dumps(self.item(name, regions))

    def item(self, name: str, regions: RegionFeatures) -> dict[str, Any]:
        """What is kept of an image."""
        return info_of(regions) | {"feature_path": name, "features": self.features_of(regions)}

    def flush(self) -> None:
        self._put(self._waiting)
        self._waiting.clear()

    def close(self) -> None:
        self.flush()
        with self._errors(), self._environment.begin() as transaction:
            keys = [key for key in transaction.cursor().iternext(values=False) if key != KEYS]
            listed = transaction.get(KEYS)
        value = pickles.dumps(keys)
        if value != listed:
            self._put({KEYS: value})
        self._environment.close()

    def abandon(self) -> None:
        self._waiting.clear()
        if self._environment is not None:
            self._environment.close()

    def _put(self, values: Mapping[bytes, bytes]) -> None:
        """Write all of it or nothing, in as large a map as it takes."""
        with self._errors():
            check_in_place(self._opened, self.path / "data.mdb")
            while not self._fits(values):
                self._environment.set_mapsize(2 * self._environment.info()["map_size"])

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OutputError(f"{self.path}: can't be written: {error.strerror}") from error
        except lmdb.Error as error:
            reason = first_line(error)
            if os.strerror(errno.EIO) in reason:  # LMDB's word for half a write, too
                reason += ", or no space left"
            raise OutputError(f"{self.path}: can't be written: {reason}") from error

    def _fits(self, values: Mapping[bytes, bytes]) -> bool:
        try:
            with self._environment.begin(write=True) as transaction:
                for key, value in values.items():
                    transaction.put(key, value)
        except lmdb.MapFullError:
            return False
        return True


_open: dict[Path, tuple[lmdb.Environment, int]] = {}  # a process can open a file but once


class LMDBReader(FeatureReader):
    """Reads MMF's LMDBs, those without a list of keys too, whether a folder or one file.

    An item needs only ``features``.
    """

    def __init__(self, path: str | Path):
        super().__init__(path)
        self._file = data_file(self.path).resolve()
        self._environment, readers = _open.get(self._file, (None, 0))
        if self._environment is None:
            self._environment = self._opened()
        _open[self._file] = self._environment, readers + 1

    def _opened(self) -> lmdb.Environment:
        options = {"readonly": True, "lock": False, "readahead": False}
        try:
            environment = lmdb.open(str(self.path), subdir=self.path.is_dir(), **options)
        except lmdb.Error as error:
            reason = first_line(error).removeprefix(f"{self.path}: ")
            raise StoreError(f"{self.path}: can't be read: {reason}") from error
        try:
            _check_length(environment, self._file)
        except StoreError:
            environment.close()
            raise
        return environment

    @contextlib.contextmanager
    def _reading(self) -> Iterator[lmdb.Transaction]:
        try:
            with self._environment.begin(buffers=True) as transaction:
                yield transaction
        except lmdb.Error as error:
            raise StoreError(f"{self._file}: is damaged ({first_line(error)})") from error

    def names(self) -> Iterator[str]:
        with self._reading() as transaction:
            for key in transaction.cursor().iternext(values=False):
                if key != KEYS:
                    yield os.fsdecode(bytes(key))

    def __len__(self) -> int:
        with self._reading() as transaction:
            return transaction.stat()["entries"] - (transaction.get(KEYS) is not None)

    def __contains__(self, name: str) -> bool:
        key = os.fsencode(name)
        if key == KEYS or not 0 < len(key) <= LONGEST_KEY:
            return False
        with self._reading() as transaction:
            return transaction.get(key) is not None

    def read(self, name: str) -> RegionFeatures:
        item = self.item(name)
        try:
            return self.regions(name, item)
        except StoreError as error:
            raise StoreError(f"{self._file}: {name!r}: {error}") from error

    def item(self, name: str) -> Mapping[str, Any]:
        """What is kept of an image. Raises StoreError where it isn't there or is damaged."""
        if name not in self:
            raise StoreError(f"{self.path}: has no image {name!r}")
        with self._reading() as transaction:
            value = bytes(transaction.get(os.fsencode(name)))
        try:
            item = pickles.loads(value)
            if not isinstance(item, Mapping) or "features" not in item:
                raise StoreError("no features")
        except StoreError as error:
            raise StoreError(f"{self._file}: {name!r}: {error}") from error
        return item

    def regions(self, name: str, item: Mapping[str, Any]) -> RegionFeatures:
        """The regions that an item is of. Raises StoreError, without the file's name."""
        info = {k: v for k, v in item.items() if k not in ("features", "feature_path")}
        return regions_of(item["features"], info)

    def close(self) -> None:
        if self._environment is None:
            return
        environment, readers = _open.pop(self._file)
        if readers > 1:
            _open[self._file] = environment, readers - 1
        else:
            environment.close()
        self._environment = None


# ViLBERT's names of what RegionFeatures has.
_VILBERT_KEYS = {"boxes": "bbox", "image_h": "image_height", "image_w": "image_width"}


class ViLBERTWriter(LMDBWriter):
    """Writes ViLBERT's LMDB, which has nothing of classes. What is unknown is left out."""

    def item(self, name: str, regions: RegionFeatures) -> dict[str, Any]:
        values = {key: getattr(regions, field) for key, field in _VILBERT_KEYS.items()}
        return {
            "image_id": name,
            **{key: value for key, value in values.items() if value is not None},
            "num_boxes": len(regions),  # some of its readers reshape by it
            "features": self.features_of(regions),
        }

    @staticmethod
    def bytes_per_image(regions: int, dimension: int, classes: int, itemsize: int) -> int:
        return regions * (dimension * itemsize + 4 * 4) + 3500


class ViLBERTReader(LMDBReader):
    """Reads ViLBERT's LMDBs, those with arrays in base64 too, and with more in their items."""

    def regions(self, name: str, item: Mapping[str, Any]) -> RegionFeatures:
        known = {_VILBERT_KEYS.get(key, key): value for key, value in item.items()}
        if str(known.get("image_id")) == name:
            del known["image_id"]
        try:
            boxes = known["bbox"] = _rows(known.get("bbox"), None, 4)
            count = known.get("num_boxes") if boxes is None else len(boxes)
            for key in ("features", "cls_prob"):
                known[key] = _rows(known.get(key), count)
        except (ValueError, TypeError) as error:
            raise StoreError(f"arrays that aren't whole ({first_line(error)})") from error
        return regions_of(known.pop("features"), known)


def _rows(value: Any, count: int | None, width: int | None = None) -> Any:
    """An array, (count, width) where it is flat or base64 of float32, of which one is None."""
    if isinstance(value, (str, bytes)):
        value = np.frombuffer(base64.b64decode(value, validate=True), "<f4").astype(np.float32)
    if not isinstance(value, np.ndarray) or value.ndim != 1:
        return value
    if count is None and width is None:
        return value
    count = value.size // width if count is None else int(count)
    return value.reshape(count, width or (value.size // count if count else 0))
