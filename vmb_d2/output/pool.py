"""Readers that are open while they are used, so that any number of stores can be at hand."""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path

from ..errors import StoreError
from ..stores.base import FeatureReader
from ..structures.regions import RegionFeatures

# A process may often have 1024 files open. A store is one, or two.
MOST_OPEN = 64

_lock = threading.RLock()
_open: weakref.WeakKeyDictionary[PooledReader, None] = weakref.WeakKeyDictionary()  # last used last


class PooledReader(FeatureReader):
    """Reads a store, which is opened when it is used.

    Of all the process's pooled readers, the ``MOST_OPEN`` that were used last stay open, and those
    that are just being used, in whatever thread.

    Args:
        path: of the store.
        kind: the reader of its format.

    Raises:
        StoreError: no such store, or it is damaged; later also where it can't be opened again.
    """

    def __init__(self, path: str | Path, kind: type[FeatureReader]):
        super().__init__(path)
        self._kind = kind
        self._reader: FeatureReader | None = None
        self._users = 0
        self._closed = False
        with self._opened():  # so that damage shows now
            pass

    @property
    def kind(self) -> type[FeatureReader]:
        return self._kind

    @contextlib.contextmanager
    def _opened(self) -> Iterator[FeatureReader]:
        with _lock:
            if self._closed:
                raise StoreError(f"{self.path}: is closed")
            reader = self._reader
            if reader is None:
                _make_room()
                reader = self._reader = self._kind(self.path)
            _open.pop(self, None)
            _open[self] = None
            self._users += 1
        try:
            yield reader
        finally:
            with _lock:
                self._users -= 1

    def names(self) -> Iterator[str]:
        with self._opened() as reader:
            yield from reader.names()

    def __len__(self) -> int:
        with self._opened() as reader:
            return len(reader)

    def __contains__(self, name: str) -> bool:
        with self._opened() as reader:
            return name in reader

    def read(self, name: str) -> RegionFeatures:
        with self._opened() as reader:
            return reader.read(name)

    def close(self) -> None:
        self._closed = True
        self._let_go()

    def _let_go(self) -> None:
        with _lock:
            _open.pop(self, None)
            reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()


def _make_room() -> None:
    """Close those used the longest ago, so that one more can be open."""
    idle = [pooled for pooled in _open if not pooled._users]
    for pooled in idle[: max(len(_open) - MOST_OPEN + 1, 0)]:
        pooled._let_go()
