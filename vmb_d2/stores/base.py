"""The interface of all formats: a writer and a reader of one store."""

from __future__ import annotations

import contextlib
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np

from ..errors import OutputError, StoreError, first_line
from ..structures.class_names import NO_NAMES, ClassNames
from ..structures.regions import RegionFeatures

FEATURE_DTYPES = ("float32", "float16")
NOT_UTF8 = "not UTF-8"


def is_utf8(name: str) -> bool:
    """Whether a name can be written as UTF-8, unlike some names of files."""
    return not re.search("[\ud800-\udfff]", name)


@contextlib.contextmanager
def output_errors(path: str | Path, failed: str = "") -> Iterator[None]:
    """Raise an OSError or StoreError as an OutputError of one line.

    Args:
        path: the store or file.
        failed: what failed, as in ``can't be written``; empty: the error's own file is named.
    """
    try:
        yield
    except StoreError as error:
        raise OutputError(str(error)) from error
    except OSError as error:
        place = f"{path}: {failed}" if failed else error.filename or path
        raise OutputError(f"{place}: {error.strerror or first_line(error)}") from error


@contextlib.contextmanager
def store_errors(place: object) -> Iterator[None]:
    """Raise whatever reading damaged content raises as a StoreError of one line."""
    try:
        yield
    except StoreError as error:
        raise StoreError(f"{place}: {error}") from error
    except OSError as error:
        reason = error.strerror or first_line(error)
        raise StoreError(f"{place}: can't be read: {reason}") from error
    except Exception as error:
        raise StoreError(f"{place}: is damaged ({first_line(error)})") from error


class FeatureWriter(ABC):
    """Adds images to a store of one format, which it makes where there is none.

    Only one writer may have a store open. After a crash of the process or of the machine, opening
    the store again finds every image that was flushed, and no image in part.

    Args:
        path: the folder or file of the store. Its parent exists.
        dtype: of the features, one of ``FEATURE_DTYPES``; ignored by formats with ``only_dtype``.
        class_names: of the classes, for formats that write something of them.

    Raises:
        OutputError: the store can't be opened or written to, or is damaged.
    """

    #: The fields of RegionFeatures that the format has a place for, besides ``features``.
    keeps: ClassVar[frozenset[str]]
    #: Of fields that the format demands: how an image without the field is written.
    without: ClassVar[Mapping[str, str]] = {}
    #: The only dtype of features in this format; None: any of ``FEATURE_DTYPES``.
    only_dtype: ClassVar[str | None] = None
    #: Whether the names of the classes are written.
    needs_class_names: ClassVar[bool] = False
    #: Whether arrays are written as base64.
    is_base64: ClassVar[bool] = False

    def __init__(
        self, path: str | Path, dtype: str = "float32", class_names: ClassNames = NO_NAMES
    ):
        self.path = Path(path)
        self.dtype = self.dtype_for(dtype)
        self.class_names = class_names
        self._opened = contextlib.ExitStack()
        try:
            with output_errors(self.path):
                self._open()
        except BaseException:
            self.abandon()
            raise

    @abstractmethod
    def _open(self) -> None:
        """Open the store; how to close it goes onto the stack ``_opened``.

        Raises OSError, StoreError or OutputError.
        """

    @classmethod
    def dtype_for(cls, dtype: str) -> np.dtype:
        """The dtype in which features are written where ``dtype`` is asked for."""
        return np.dtype(cls.only_dtype or dtype)

    @classmethod
    def problems(cls, names: Iterable[str]) -> Iterator[tuple[str, str]]:
        """(name, reason) of as few names as possible, without which all others can be kept.

        Args:
            names: of all images of a run, without repetition.
        """
        return iter(())

    @classmethod
    def mistaken(cls, names: Iterable[str]) -> Iterator[str]:
        """A line of warning for each kind of names that the format's own readers confuse."""
        return iter(())

    @classmethod
    def problem_of(cls, regions: RegionFeatures) -> str | None:
        """Why the format's own readers can't read a store with this image; None if they can."""
        return None

    @classmethod
    def bytes_per_image(cls, regions: int, dimension: int, classes: int, itemsize: int) -> int:
        """About how many bytes one image takes on the disk.

        Args:
            regions, dimension, classes: how many of each.
            itemsize: bytes of a feature's number.
        """
        a_region = dimension * itemsize + 32  # the box, and what is known of the best class
        if "cls_prob" in cls.keeps:
            a_region += classes * (itemsize if cls.only_dtype else 4)
        return regions * a_region * 4 // 3 if cls.is_base64 else regions * a_region + 3500

    def __contains__(self, name: str) -> bool:
        """Whether an image is there, whole. For many, :meth:`present` is faster."""
        return bool(self.present([name]))

    @abstractmethod
    def present(self, names: Iterable[str]) -> set[str]:
        """Those of ``names`` that are there, whole."""

    @abstractmethod
    def write(self, name: str, regions: RegionFeatures) -> None:
        """Add an image that isn't there yet. It is safe after the next :meth:`flush`.

        Raises OutputError; then nothing of the image is left, and only :meth:`abandon` may follow.
        """

    @abstractmethod
    def flush(self) -> None:
        """Sync what was written to the disk. Raises OutputError, as :meth:`write` does."""

    def close(self) -> None:
        """Flush, make the store complete for its readers, and close it. Raises OutputError."""
        self.flush()
        self.abandon()

    def abandon(self) -> None:
        """Close the store without a further write; what was flushed stays."""
        self._opened.close()

    def features_of(self, regions: RegionFeatures) -> np.ndarray:
        """The features in the writer's dtype, C-contiguous."""
        return np.ascontiguousarray(regions.features, dtype=self.dtype)


class FeatureReader(ABC):
    """Reads a store of one format, one image at a time. No code in a pickle is run.

    Args:
        path: the folder or file of the store.

    Raises:
        StoreError: no such store, or it is damaged.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._opened = contextlib.ExitStack()
        try:
            self._open()
        except BaseException as error:
            self.close()
            if isinstance(error, StoreError) or not isinstance(error, Exception):
                raise
            reason = getattr(error, "strerror", None) or first_line(error)
            raise StoreError(f"{self.path}: can't be read: {reason}") from error

    def _open(self) -> None:  # noqa: B027 (folders needn't be opened)
        """Open the store, as the writer's. What this raises beside StoreErrors becomes one."""

    @classmethod
    def is_store(cls, path: Path) -> bool:
        """Whether an existing path is a store of this format, by its content."""
        return False

    @property
    def kind(self) -> type[FeatureReader]:
        """The format's reader: the own class, unless this one reads through others."""
        return type(self)

    @property
    def stores(self) -> Mapping[Path, list[str]]:
        """The names of all images, by the store that they are in. Those of a union can recur."""
        return {self.path: list(self.names())}

    @abstractmethod
    def names(self) -> Iterator[str]:
        """The names of all images, each once, in the order in which reading them is fastest."""

    def __len__(self) -> int:
        """The number of images."""
        return sum(1 for _ in self.names())

    @abstractmethod
    def __contains__(self, name: str) -> bool:
        """Whether an image is there."""

    @abstractmethod
    def read(self, name: str) -> RegionFeatures:
        """One image. Raises StoreError where it isn't there or is damaged."""

    def close(self) -> None:
        """Close the store."""
        self._opened.close()

    def __enter__(self):
        return self

    def __exit__(self, *exception) -> None:
        self.close()
