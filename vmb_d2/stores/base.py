"""What every format's writer and reader offer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np

from ..structures.regions import RegionFeatures

FEATURE_DTYPES = ("float32", "float16")


class FeatureWriter(ABC):
    """Adds images to a store of one format, which it makes where there is none.

    One writer a store at a time. After any death, of the process or of the machine, opening the
    store again finds every image that was flushed, whole, and nothing of any other.

    Args:
        path: the folder or file that the format keeps its images in. Its parent exists.
        dtype: of the features, one of ``FEATURE_DTYPES``.

    Raises:
        OutputError: the store can't be opened or written to, or is damaged.
    """

    only_dtype: ClassVar[str | None] = None  # the one that the format knows; None: it keeps any
    takes_class_names: ClassVar[bool] = False  # True: the writer has an argument class_names
    needs_class_names: ClassVar[bool] = False  # True: and writes the names

    def __init__(self, path: str | Path, dtype: str = "float32"):
        self.path = Path(path)
        self.dtype = self.dtype_for(dtype)

    @classmethod
    def dtype_for(cls, dtype: str) -> np.dtype:
        """In which dtype features are written where ``dtype`` is asked for."""
        return np.dtype(cls.only_dtype or dtype)

    @classmethod
    def problems(cls, names: Iterable[str]) -> Iterator[tuple[str, str]]:
        """(name, reason) of each name under which this format can't keep an image.

        ``names`` are those of all images of a run; they don't repeat.
        """
        return iter(())

    @classmethod
    def fewest_problems(cls, names: Iterable[str]) -> dict[str, str]:
        """The names to leave out, as few as will do, so that the others can be kept; and why."""
        return dict(cls.problems(names))

    @classmethod
    def mistaken(cls, names: Iterable[str]) -> Iterator[str]:
        """What to warn of, a line each: names that the format's own readers take for others."""
        return iter(())

    @classmethod
    def problem_of(cls, regions: RegionFeatures) -> str | None:
        """Why the format's own readers can't read a store with this image; None if they can."""
        return None

    @staticmethod
    @abstractmethod
    def bytes_per_image(regions: int, dimension: int, classes: int, itemsize: int) -> int:
        """About how much one image takes on the disk."""

    @abstractmethod
    def __contains__(self, name: str) -> bool:
        """Whether an image is there, whole."""

    def present(self, names: Iterable[str]) -> set[str]:
        """Those of ``names`` that are there, whole. For many it is faster than asking for each."""
        return {name for name in names if name in self}

    @abstractmethod
    def write(self, name: str, regions: RegionFeatures) -> None:
        """Add an image that isn't there yet. It counts only when it was flushed.

        Raises OutputError; then nothing of the image is left, and only :meth:`abandon` may follow.
        """

    @abstractmethod
    def flush(self) -> None:
        """Make what was written survive any death. Raises OutputError, as :meth:`write` does."""

    @abstractmethod
    def close(self) -> None:
        """Flush, make the store complete for its readers, and let go of it. Raises OutputError."""

    @abstractmethod
    def abandon(self) -> None:
        """Let go of the store without a further write; what was flushed stays. Never raises."""

    def features_of(self, regions: RegionFeatures) -> np.ndarray:
        """The features in the writer's dtype, C-contiguous."""
        return np.ascontiguousarray(regions.features, dtype=self.dtype)


class FeatureReader(ABC):
    """Reads a store of one format, one image at a time.

    Nothing that is in the store gets run, pickles included.

    Args:
        path: the folder or file that the format keeps its images in.

    Raises:
        StoreError: no such store, or it is damaged.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)

    @property
    def kind(self) -> type[FeatureReader]:
        """The format's reader: the own class, unless this one reads through others."""
        return type(self)

    @abstractmethod
    def names(self) -> Iterator[str]:
        """The names of all images, each once, in the order in which reading them is fastest."""

    @abstractmethod
    def __len__(self) -> int:
        """How many images there are."""

    @abstractmethod
    def __contains__(self, name: str) -> bool:
        """Whether an image is there."""

    @abstractmethod
    def read(self, name: str) -> RegionFeatures:
        """One image. Raises StoreError where it isn't there or is damaged."""

    def close(self) -> None:  # noqa: B027 (most have nothing to let go of)
        """Let go of the store."""

    def __enter__(self):
        return self

    def __exit__(self, *exception) -> None:
        self.close()
