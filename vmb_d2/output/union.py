"""Several stores of one format, such as those of a run's shards, read as one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ..errors import StoreError
from ..stores.base import FeatureReader
from ..structures.regions import RegionFeatures
from . import pool
from .pool import PooledReader


class UnionReader(FeatureReader):
    """Reads several stores of one format as one. A name means the first store's image that has it.

    All stores are opened once; after that few are open at a time, see
    :class:`vmb_d2.output.pool.PooledReader`. Once all names were asked for, they are kept, and what
    is added to the stores after that isn't seen.

    Args:
        path: the folder in which the stores lie, by which errors name the whole.
        kind: the reader of the stores' format.
        places: the stores, in order.
        first_is_merged: whether the first one is made of the others, whole or in part.

    Attributes:
        parts: a reader of each store.
        merged: that of the store which is made of the others; None where there is none.

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
        self._part_of: dict[str, int] | None = None  # by name, as soon as all are listed
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

    def names(self) -> Iterator[str]:
        if self._part_of is not None:
            yield from self._part_of
            return
        part_of: dict[str, int] = {}
        for index, part in enumerate(self.parts):
            for name in part.names():
                if name not in part_of:
                    part_of[name] = index
                    yield name
        self._part_of = part_of

    def __len__(self) -> int:
        return len(self._listed())

    def __contains__(self, name: str) -> bool:
        return self._part(name) is not None

    def read(self, name: str) -> RegionFeatures:
        part = self._part(name)
        if part is None:
            raise StoreError(f"{self.path}: has no image {name!r}")
        return part.read(name)

    def _listed(self) -> dict[str, int]:
        if self._part_of is None:
            for _ in self.names():
                pass
        return self._part_of

    def _part(self, name: str) -> FeatureReader | None:
        """The first part with an image of this name."""
        if self._part_of is None and len(self.parts) <= pool.MOST_OPEN:
            return next((part for part in self.parts if name in part), None)
        index = self._listed().get(name)  # asking more parts would open one after the other
        return None if index is None else self.parts[index]

    def close(self) -> None:
        for part in self.parts:
            part.close()
