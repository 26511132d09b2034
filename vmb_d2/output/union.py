"""Several stores of one format, such as those of a run's shards, read as one."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..errors import StoreError
from ..stores.base import FeatureReader
from ..structures.regions import RegionFeatures

# A process may often have 1024 files open. A store is one file, or two.
MOST_OPEN = 64


class PooledReader(FeatureReader):
    """Reads a store that is open while it is used.

    Args:
        path: of the store.
        kind: the reader of its format.
        pool: the open stores that share one limit, in the order of their last use.

    Raises:
        StoreError: no such store, or it is damaged; later also where it can't be opened again.
    """

    def __init__(
        self, path: str | Path, kind: type[FeatureReader], pool: dict[Path, FeatureReader]
    ):
        super().__init__(path)
        self._kind = kind
        self._pool = pool
        self._reader()  # so that damage shows now

    @property
    def kind(self) -> type[FeatureReader]:
        return self._kind

    def _reader(self) -> FeatureReader:
        """The store's reader; of all in the pool, the ``MOST_OPEN`` last used ones stay open."""
        reader = self._pool.pop(self.path, None)
        if reader is None:
            while len(self._pool) >= MOST_OPEN:
                self._pool.pop(next(iter(self._pool))).close()
            reader = self._kind(self.path)
        self._pool[self.path] = reader
        return reader

    def names(self) -> Iterator[str]:
        return iter(list(self._reader().names()))

    def __len__(self) -> int:
        return len(self._reader())

    def __contains__(self, name: str) -> bool:
        return name in self._reader()

    def read(self, name: str) -> RegionFeatures:
        return self._reader().read(name)

    def close(self) -> None:
        if reader := self._pool.pop(self.path, None):
            reader.close()


class UnionReader(FeatureReader):
    """Reads several stores of one format as one. Of images with the same name, the first counts.

    The names are listed once, when they are first asked for; images that are added to the stores
    after that aren't seen.

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
        places: Sequence[Path],
        first_is_merged: bool = False,
    ):
        super().__init__(path)
        self._kind = kind
        pool: dict[Path, FeatureReader] = {}
        self.parts: list[PooledReader] = []
        try:
            for place in places:
                self.parts.append(PooledReader(place, kind, pool))
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

    def names(self) -> Iterator[str]:
        return iter(self._part_of)

    def __len__(self) -> int:
        return len(self._part_of)

    def __contains__(self, name: str) -> bool:
        return name in self._part_of

    def read(self, name: str) -> RegionFeatures:
        if name not in self:
            raise StoreError(f"{self.path}: has no image {name!r}")
        return self._part_of[name].read(name)

    def close(self) -> None:
        for part in self.parts:
            part.close()
