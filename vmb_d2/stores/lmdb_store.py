"""MMF's LMDB: an image a key, its value a pickled dict; ``keys`` lists all keys."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import lmdb

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
                is_mmf = "feature_path" in item or "bbox" in item
                is_vilbert = not is_mmf and ("boxes" in item or "image_id" in item)
                return "vilbert" if is_vilbert else "lmdb"
    except OSError:
        return None
    except StoreError:
        pass
    return "vilbert" if path.name == VILBERT_PLACE else "lmdb"


def _opened(path: Path, **options: Any) -> lmdb.Environment:
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
    _environment: lmdb.Environment | None = None

    def _open(self) -> None:
        self._waiting: dict[bytes, bytes] = {}
        self._environment = _opened(self.path, map_size=self.map_size)
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

    @staticmethod
    def bytes_per_image(regions: int, dimension: int, classes: int, itemsize: int) -> int:
        return regions * (dimension * itemsize + classes * 4 + 4 * 4 + 8) + 3500

    def __contains__(self, name: str) -> bool:
        return bool(self.present([name]))

    def present(self, names: Iterable[str]) -> set[str]:
        found = set()
        # With buffers nothing is copied.
        with self._errors(), self._lmdb.begin(buffers=True) as transaction:
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
        with self._errors(), self._lmdb.begin() as transaction:
            keys = [key for key in transaction.cursor().iternext(values=False) if key != KEYS]
            stored = transaction.get(KEYS)
        if (value := pickles.dumps(keys)) != stored:
            self._put({KEYS: value})
        self.abandon()

    def abandon(self) -> None:
        if self._environment is not None:
            self._environment.close()

    @property
    def _lmdb(self) -> lmdb.Environment:
        assert self._environment is not None
        return self._environment

    def _put(self, values: Mapping[bytes, bytes]) -> None:
        """Write all values or none. The map grows until they fit."""
        with self._errors():
            check_in_place(self._file, self.path / "data.mdb")
            while not self._fits(values):
                self._lmdb.set_mapsize(2 * self._lmdb.info()["map_size"])

    def _fits(self, values: Mapping[bytes, bytes]) -> bool:
        try:
            with self._lmdb.begin(write=True) as transaction:
                for key, value in values.items():
                    transaction.put(key, value)
        except lmdb.MapFullError:
            return False
        return True

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


_environments: dict[Path, tuple[lmdb.Environment, int]] = {}  # a process opens a file only once


class LMDBReader(FeatureReader):
    """Reads MMF's LMDBs, those without a list of keys too, whether a folder or one file.

    An item needs only ``features``.
    """

    format_name: ClassVar[str] = "lmdb"
    _environment: lmdb.Environment | None = None

    def _open(self) -> None:
        self._file = data_file(self.path).resolve()
        environment, readers = _environments.get(self._file, (None, 0))
        if environment is None:
            environment = _opened(self.path, readonly=True, subdir=self.path.is_dir())
        self._environment = environment
        _environments[self._file] = environment, readers + 1

    @classmethod
    def is_store(cls, path: Path) -> bool:
        return lmdb_kind(path) == cls.format_name

    @contextlib.contextmanager
    def _reading(self) -> Iterator[lmdb.Transaction]:
        assert self._environment is not None
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
        if self._environment is None:
            return
        environment, readers = _environments.pop(self._file)
        if readers > 1:
            _environments[self._file] = environment, readers - 1
        else:
            environment.close()
        self._environment = None
