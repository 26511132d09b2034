"""The LMDBs of MMF and ViLBERT: an image a key, its value a pickled dict."""

from __future__ import annotations

import base64
import contextlib
import errno
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar
from weakref import WeakValueDictionary

import lmdb
import numpy as np

from ..errors import OutputError, StoreError, first_line
from ..structures.regions import RegionFeatures
from ..utils import safe_pickle as pickles
from ..utils.files import check_in_place, sync_folder
from ..utils.text import listed
from .base import FeatureReader, FeatureWriter, output_errors, store_errors
from .fields import IN_INFO, info_of, regions_of

KEYS = b"keys"  # the key under which MMF and ViLBERT find all others
LONGEST_KEY = 511  # bytes, as LMDB is usually built
VILBERT_PLACE = "vilbert.lmdb"
_MAGIC = 0xBEEFC0DE.to_bytes(4, "little")  # at byte 16 of the file
# LMDB doesn't write pages that a transaction takes and frees, so some can lack at a file's end.
_SLACK_SHARE, _MOST_SLACK = 0.01, 64


def data_file(path: Path) -> Path:
    """The file of an LMDB, which is a folder or a file itself."""
    return path / "data.mdb" if path.is_dir() else path


def lmdb_kind(path: Path) -> str | None:
    """The format of the LMDB at a path: "lmdb" or "vilbert"; None: there is no LMDB.

    The first image tells; where none can be read, the path's name.
    """
    try:
        with open(data_file(path), "rb") as file:
            if file.read(20)[16:] != _MAGIC:
                return None
        with LMDBReader(path) as reader:
            for name in itertools.islice(reader.names(), 1):
                item = reader.item(name)
                is_vilbert = "boxes" in item or "image_id" in item
                is_mmf = "feature_path" in item or "bbox" in item
                return "vilbert" if is_vilbert and not is_mmf else "lmdb"
    except OSError:
        return None
    except StoreError:
        pass
    return "vilbert" if path.name == VILBERT_PLACE else "lmdb"


def _environment(path: Path, **options: Any) -> lmdb.Environment:
    """Open an LMDB without its lock file. Raises StoreError."""
    failed = "can't be read" if options.get("readonly") else "can't be opened"
    try:
        # Only one writer may have it open. The locks in LMDB's own lock file would outlive a
        # process that died on another machine.
        environment = lmdb.open(str(path), lock=False, readahead=False, **options)
    except lmdb.Error as error:
        reason = first_line(error).removeprefix(f"{path}: ")
        raise StoreError(f"{path}: {failed}: {reason}") from error
    pages = environment.info()["last_pgno"] + 1
    pages -= min(int(pages * _SLACK_SHARE), _MOST_SLACK)
    if data_file(path).stat().st_size < pages * environment.stat()["psize"]:
        environment.close()  # reading pages that are cut off would end the process
        raise StoreError(f"{data_file(path)}: ends too early")
    return environment


class LMDBWriter(FeatureWriter):
    """Writes MMF's LMDB, in one transaction a flush; until then images wait in memory.

    The list of keys, without which MMF can't read the store, is written by :meth:`close`.
    """

    keeps = IN_INFO
    map_size: ClassVar[int] = 1 << 30  # bytes that the LMDB can have at first; it grows as needed

    def _open(self) -> None:
        self._waiting: dict[bytes, bytes] = {}
        self._environment = _environment(self.path, map_size=self.map_size)
        self._opened.callback(self._environment.close)
        self._file = os.stat(self.path / "data.mdb")
        sync_folder(self.path)
        sync_folder(self.path.parent)

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
        """The dict that is stored of an image."""
        return info_of(regions) | {"feature_path": name, "features": self.features_of(regions)}

    def flush(self) -> None:
        self._put(self._waiting)
        self._waiting.clear()

    def close(self) -> None:
        self.flush()
        with self._errors(), self._environment.begin() as transaction:
            keys = [key for key in transaction.cursor().iternext(values=False) if key != KEYS]
            stored = transaction.get(KEYS)
        if (value := pickles.dumps(keys)) != stored:
            self._put({KEYS: value})
        self.abandon()

    def _put(self, values: Mapping[bytes, bytes]) -> None:
        """Write all values or none. The map grows until they fit."""
        with self._errors():
            check_in_place(self._file, self.path / "data.mdb")
            while True:
                try:
                    with self._environment.begin(write=True) as transaction:
                        for key, value in values.items():
                            transaction.put(key, value)
                    return
                except lmdb.MapFullError:
                    self._environment.set_mapsize(2 * self._environment.info()["map_size"])

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            with output_errors(self.path, "can't be written"):
                yield
        except lmdb.Error as error:
            reason = first_line(error)
            if os.strerror(errno.EIO) in reason:  # LMDB's message for a partial write, too
                reason += ", or no space left"
            raise OutputError(f"{self.path}: can't be written: {reason}") from error


def _looked_up_first(name: str) -> str | None:
    """The key that MMF's reader tries before the name itself."""
    try:
        return str(int(name.split("_")[-1]))
    except ValueError:
        return None


# A process opens a file only once: the readers of one share it, and the last one closes it.
_environments: WeakValueDictionary[Path, lmdb.Environment] = WeakValueDictionary()


class LMDBReader(FeatureReader):
    """Reads MMF's LMDBs, those without a list of keys too, whether a folder or one file.

    An item needs only ``features``.
    """

    format_name: ClassVar[str] = "lmdb"
    _environment: lmdb.Environment | None = None

    def _open(self) -> None:
        self._file = data_file(self.path).resolve()
        self._environment = _environments.get(self._file)
        if self._environment is None:
            self._environment = _environment(self.path, readonly=True, subdir=self.path.is_dir())
            _environments[self._file] = self._environment

    @classmethod
    def is_store(cls, path: Path) -> bool:
        return lmdb_kind(path) == cls.format_name

    @contextlib.contextmanager
    def _reading(self) -> Iterator[lmdb.Transaction]:
        assert self._environment is not None
        with store_errors(self._file), self._environment.begin(buffers=True) as transaction:
            yield transaction

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
        with store_errors(f"{self._file}: {name!r}"):
            return self.regions(name, item)

    def item(self, name: str) -> Mapping[str, Any]:
        """The dict that is stored of an image. Raises StoreError as :meth:`read` does."""
        if name not in self:
            raise StoreError(f"{self.path}: has no image {name!r}")
        with self._reading() as transaction:
            value = bytes(transaction.get(os.fsencode(name)))
        with store_errors(f"{self._file}: {name!r}"):
            item = pickles.loads(value)
            if not isinstance(item, Mapping) or "features" not in item:
                raise StoreError("no features")
            return item

    def regions(self, name: str, item: Mapping[str, Any]) -> RegionFeatures:
        """The regions that an item is of. Raises StoreError, without the file's name."""
        info = {k: v for k, v in item.items() if k not in ("features", "feature_path")}
        return regions_of(item["features"], info)

    def close(self) -> None:
        self._environment = None


# Keys of an item that are fields of RegionFeatures.
_KEYS = {"boxes": "bbox", "image_h": "image_height", "image_w": "image_width"}


class ViLBERTWriter(LMDBWriter):
    """Writes ViLBERT's LMDB, which has nothing of classes. What is unknown is left out."""

    keeps = frozenset(_KEYS.values())

    def item(self, name: str, regions: RegionFeatures) -> dict[str, Any]:
        values = {key: getattr(regions, field) for key, field in _KEYS.items()}
        return {
            "image_id": name,
            **{key: value for key, value in values.items() if value is not None},
            "num_boxes": len(regions),  # some of its readers reshape by it
            "features": self.features_of(regions),
        }


class ViLBERTReader(LMDBReader):
    """Reads ViLBERT's LMDBs, those with arrays in base64 too, and with more in their items."""

    format_name = "vilbert"

    def regions(self, name: str, item: Mapping[str, Any]) -> RegionFeatures:
        known = {_KEYS.get(key, key): value for key, value in item.items()}
        if str(known.get("image_id")) == name:
            del known["image_id"]
        boxes = known["bbox"] = _table(known.get("bbox"), (-1, 4))
        count = known.get("num_boxes") if boxes is None else len(boxes)
        if count is not None:
            shape = (int(count), -1 if int(count) else 0)
            for key in ("features", "cls_prob"):
                known[key] = _table(known.get(key), shape)
        return regions_of(known.pop("features"), known)


def _table(value: Any, shape: tuple[int, int]) -> Any:
    """An array of a shape where ``value`` is flat, or base64 of float32; else the value."""
    if isinstance(value, (str, bytes)):
        value = np.frombuffer(base64.b64decode(value, validate=True), "<f4").astype(np.float32)
    is_flat = isinstance(value, np.ndarray) and value.ndim == 1
    return value.reshape(shape) if is_flat else value
