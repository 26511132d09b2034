"""Images in a run's stores that its record doesn't vouch for: kept, or extracted again."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterable

from ..errors import OutputError, StoreError
from ..stores.base import FeatureReader
from ..stores.folder import FolderWriter
from ..utils.text import listed
from .store_set import StoreSet

CHOICES = ("keep", "redo")

logger = logging.getLogger(__name__)


class ForeignImages:
    """Those of a run's images that are in its stores and that no record vouches for.

    Where there is a record, formats with one file for all images are trusted, since they check
    themselves when they are opened. Images that are damaged are extracted again. The files of those
    that are kept get a new time, so that the record vouches for them from then on.

    Args:
        stores: of the run, not open yet.
        names: of its images.
        vouched: see :meth:`vmb_d2.output.manifest.Manifest.vouched`.
        redo: extract those that are whole again, too.
    """

    def __init__(
        self,
        stores: StoreSet,
        names: Iterable[str],
        vouched: tuple[float, float] | None,
        redo: bool = False,
    ):
        self._kept: set[str] = set()
        self._stores = stores
        self._names = list(names)
        self._vouched = vouched
        self._redo = redo
        self._damaged: dict[str, str] = {}
        self._dimensions: set[int] = set()
        self._to_replace: list[tuple[FolderWriter, str]] = []

    def read_files(self) -> None:
        """Read the images in formats with one file for all, before these are opened for writing.

        Raises OutputError where one would have to be replaced, which these formats can't.
        """
        if self._vouched is not None:
            return
        for format_, _, place in self._stores.places():
            path = self._stores.folder / place
            if format_.one_file and path.exists():
                # Opening a damaged one for writing mends it or says so.
                with contextlib.suppress(StoreError), format_.reader(path) as reader:
                    for name in self._names:
                        if name in reader and not self._keeps(reader, name):
                            why = self._damaged.get(name, "`foreign`=redo")
                            raise OutputError(
                                f"{path}: was there before this folder's record began, and an "
                                f"image in it can't be replaced, as {name!r} would be ({why}): "
                                "move it away, or take another folder"
                            )

    def read_folders(self) -> None:
        """Read the images in formats with files for each, once the stores are open.

        The stores then take those to be extracted again for images that aren't there. Raises
        OutputError.
        """
        for format_, writer in self._stores.folders():
            names = writer.present(self._names)
            if self._vouched is not None:
                names = writer.changed_outside(names, *self._vouched)
            if names:
                logger.info("%s: reading %d images from elsewhere", writer.path, len(names))
            reader = format_.reader(writer.path)
            for name in sorted(names):
                if self._keeps(reader, name):
                    for suffix in writer.suffixes:
                        with contextlib.suppress(OSError):  # then it is read each time
                            os.utime(writer.path / f"{name}{suffix}")
                else:
                    writer.forget(name)
                    self._to_replace.append((writer, name))
        if self._damaged:
            reasons = [f"{name}: {reason}" for name, reason in sorted(self._damaged.items())]
            words = "damaged in this folder, and done anew: %d images: %s"
            logger.warning(words, len(reasons), listed(reasons))
        self._kept -= self._damaged.keys()
        if self._kept:
            words = "%d images from elsewhere are in this folder: taken as they are"
            logger.info(words, len(self._kept))

    def _keeps(self, reader: FeatureReader, name: str) -> bool:
        """Whether an image is whole and isn't to be extracted again."""
        try:
            regions = reader.read(name)
            reason = regions.not_finite()
        except StoreError as error:
            reason = str(error)
        if reason is not None:
            self._damaged[name] = reason
        elif not self._redo:
            self._kept.add(name)
            self._dimensions.add(regions.features.shape[1])
            return True
        return False

    def require(self, dimension: int) -> None:
        """Raise OutputError where those that are kept have features of another dimension."""
        if others := self._dimensions - {dimension}:
            raise OutputError(
                f"{self._stores.folder} holds images from elsewhere with features of dimension "
                f"{min(others)}, this model's have {dimension}: take another folder, or "
                "`foreign`=redo; `allow_mismatch`=true keeps them"
            )

    def remove(self) -> None:
        """Delete the files of those to be extracted again, before a record vouches for them.

        Raises OutputError.
        """
        for writer, name in self._to_replace:
            writer.remove(name)
