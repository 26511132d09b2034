"""Several stores of one format, such as those of a run's shards, read as one."""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from ..errors import StoreError
from ..stores.base import FeatureReader
from ..structures.regions import RegionFeatures

# A process may often have 1024 files open. A store is one file, or two.
MOST_OPEN = 64

_T = TypeVar("_T")
_lock = threading.RLock()
# In the order of their last use, as long as they are referenced.
_open: weakref.WeakKeyDictionary[PooledReader, FeatureReader] = weakref.WeakKeyDictionary()


class PooledReader(FeatureReader):
    """Reads a store that is open while it is used.

    Of all readers of this kind in the process, the ``MOST_OPEN`` last used ones stay open. One
    thread at a time reads.

    Args:
        path: of the store.
        kind: the reader of its format.

    Raises:
        StoreError: no such store, or it is damaged; later also where it can't be opened again.
    """

    def __init__(self, path: str | Path, kind: type[FeatureReader]):
        super().__init__(path)
        self._kind = kind
        self._use(lambda reader: None)  # so that damage shows now

    @property
    def kind(self) -> type[FeatureReader]:
        return self._kind

    def _use(self, function: Callable[[FeatureReader], _T]) -> _T:
        with _lock:
            reader = _open.pop(self, None)
            if reader is None:
                while len(_open) >= MOST_OPEN:
                    _open.pop(next(iter(_open))).close()
                reader = self._kind(self.path)
            _open[self] = reader
            return function(reader)

    def names(self) -> Iterator[str]:
        return iter(self._use(lambda reader: list(reader.names())))

    def __len__(self) -> int:
        return self._use(len)

    def __contains__(self, name: str) -> bool:
        return self._use(lambda reader: name in reader)

    def read(self, name: str) -> RegionFeatures:
        return self._use(lambda reader: reader.read(name))

    def close(self) -> None:
        with _lock:
            reader = _open.pop(self, None)
            if reader is not None:
                reader.close()


class UnionReader(FeatureReader):
    """Reads several stores of one format as one. Of images with the same name, the first counts.

    The names are listed once, when they are first asked for; images that are added to the stores
    after that aren't listed.

    Args:
        path: the folder in which the stores lie, for error messages.
        kind: the reader of the stores' format.
        places: the stores, in order.
        first_is_merged: whether the first store was packed from the others, as a whole or in part.

    Attributes:
        parts: a reader of each store.
        merged: the reader of the store that was packed from the others; None where there is none.

    Raises:
        StoreError: a store isn't there, or is damaged.
    """

    def __init__(
        self,
        path: str | Path,
        kind: type[FeatureReader],
        places: Sequence[str | Path],
        first_is_merged: bool = False,
    ):
        super().__init__(path)
        self._kind = kind
        self.parts: list[PooledReader] = []
        try:
            for place in places:
                self.parts.append(PooledReader(place, kind))
        except BaseException:
            self.close()
            raise
        self.merged = self.parts[0] if first_is_merged else None

    @property
    def kind(self) -> type[FeatureReader]:
        return self._kind

    @functools.cached_property
    def _part_of(self) -> dict[str, PooledReader]:
        part_of: dict[str, PooledReader] = {}
        for part in self.parts:
            for name in part.names():
                part_of.setdefault(name, part)
        return part_of

    def _part(self, name: str) -> PooledReader | None:
        """The first part with an image of this name."""
        if len(self.parts) > MOST_OPEN:  # asking each would open each
            return self._part_of.get(name)
        return next((part for part in self.parts if name in part), None)

    def names(self) -> Iterator[str]:
        return iter(self._part_of)

    def __len__(self) -> int:
        return len(self._part_of)

    def __contains__(self, name: str) -> bool:
        return self._part(name) is not None

    def read(self, name: str) -> RegionFeatures:
        part = self._part(name)
        if part is None:
            raise StoreError(f"{self.path}: has no image {name!r}")
        return part.read(name)

    def close(self) -> None:
        for part in self.parts:
            part.close()
