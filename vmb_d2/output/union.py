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


class UnionReader(FeatureReader):
    """Reads several stores of one format as one. Of images with the same name, the first counts.

    Of the stores, the :data:`MOST_OPEN` last used ones are open. The names are listed once, when
    they are first asked for; images that are added to the stores after that aren't seen.

    Args:
        path: the folder in which the stores lie, for error messages.
        kind: the reader of the stores' format.
        places: the stores, in order.
        first_is_merged: whether the first store was packed from the others, as a whole or in part.

    Attributes:
        merged: the store that was packed from the others; None where there is none.

    Raises:
        StoreError: a store isn't there, or is damaged; later also where it can't be opened again.
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
        self._places = places
        self.merged = places[0] if first_is_merged else None
        self._readers: dict[Path, FeatureReader] = {}  # that are open, in the order of their use
        try:
            for place in places:
                self._reader(place)  # so that damage shows now
        except BaseException:
            self.close()
            raise

    @property
    def kind(self) -> type[FeatureReader]:
        return self._kind

    def _reader(self, place: Path) -> FeatureReader:
        reader = self._readers.pop(place, None)
        if reader is None:
            while len(self._readers) >= MOST_OPEN:
                self._readers.pop(next(iter(self._readers))).close()
            reader = self._kind(place)
        self._readers[place] = reader
        return reader

    @functools.cached_property
    def stores(self) -> dict[Path, list[str]]:
        return {place: list(self._reader(place).names()) for place in self._places}

    @functools.cached_property
    def _place_of(self) -> dict[str, Path]:
        place_of: dict[str, Path] = {}
        for place, names in self.stores.items():
            for name in names:
                place_of.setdefault(name, place)
        return place_of

    def names(self) -> Iterator[str]:
        return iter(self._place_of)

    def __len__(self) -> int:
        return len(self._place_of)

    def __contains__(self, name: str) -> bool:
        return name in self._place_of

    def read(self, name: str) -> RegionFeatures:
        if name not in self:
            raise StoreError(f"{self.path}: has no image {name!r}")
        return self._reader(self._place_of[name]).read(name)

    def close(self) -> None:
        for reader in self._readers.values():
            reader.close()
        self._readers.clear()
