"""Images in a run's stores that its record doesn't vouch for: kept, or extracted again."""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Iterable, Mapping, Sized
from typing import Any, NamedTuple

from ..errors import OutputError, StoreError
from ..stores.base import FeatureReader
from ..stores.folder import FolderWriter
from ..utils.text import listed
from .store_set import StoreSet

CHOICES = ("keep", "redo")
_MANY = 1000

logger = logging.getLogger(__name__)


class Vouched(NamedTuple):
    """The files that a record vouches for: those last changed between its begin and its end.

    Attributes:
        begin, end: modification times, in seconds.
        died: whether its last run died. What is newer is taken for that run's.
        known: the older images that were kept before, as :attr:`ForeignImages.known`.
    """

    begin: float
    end: float
    died: bool = False
    known: Mapping[str, Any] | None = None


class ForeignImages:
    """Those of a run's images that are in its stores and that no record vouches for.

    Where there is a record, formats with one file for all images are trusted, since they check
    themselves when they are opened. Images that are damaged are extracted again.

    Args:
        stores: of the run, not open yet.
        names: of its images.
        vouched: None where there is no record.
        redo: extract those that are whole again, too.

    Attributes:
        known: the number of older images that are kept, and a hash of their names, as plain values;
            None where there is none.
        has_news: whether images are kept that the record doesn't know of.
    """

    def __init__(
        self, stores: StoreSet, names: Iterable[str], vouched: Vouched | None, redo: bool = False
    ):
        self._stores = stores
        self._names = list(names)
        self._vouched = vouched
        self._redo = redo
        self._damaged: dict[str, str] = {}
        self._older: set[str] = set()  # than the record, and whole
        self._newer: set[str] = set()
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
                    self._read_file(reader)

    def _read_file(self, reader: FeatureReader) -> None:
        for name in self._names:
            if name not in reader:
                continue
            if self._redo or not self._is_whole(reader, name):
                why = self._damaged.get(name, "`foreign`=redo")
                raise OutputError(
                    f"{reader.path}: was there before this folder's record began, and an image in "
                    f"it can't be replaced, as {name!r} would be ({why}): move it away, or take "
                    "another folder"
                )
            self._older.add(name)

    def read_folders(self) -> None:
        """Read the images in formats with files for each, once the stores are open.

        The stores then take those to be extracted again for images that aren't there. Raises
        OutputError.
        """
        for format_, writer in self._stores.folders():
            older, newer = self._unvouched(writer)
            if len(older) + len(newer) > _MANY:
                logger.info("%s: reading all images that were there before", writer.path)
            reader = format_.reader(writer.path)
            for name in sorted(older | newer):
                is_whole = self._is_whole(reader, name)
                if is_whole and name in newer and self._vouched and self._vouched.died:
                    continue
                if is_whole:
                    (self._older if name in older else self._newer).add(name)
                if self._redo or not is_whole:
                    writer.forget(name)
                    self._to_replace.append((writer, name))
        self._log()

    def _unvouched(self, writer: FolderWriter) -> tuple[set[str], set[str]]:
        """Images that are older than the record, and those that are newer."""
        there = writer.present(self._names)
        if self._vouched is None:
            return there, set()
        older, newer = writer.changed_outside(there, self._vouched.begin, self._vouched.end)
        if self._vouched.known == _described(older) and not self._redo:
            self._older |= older
            older = set()
        return older, newer

    def _is_whole(self, reader: FeatureReader, name: str) -> bool:
        try:
            regions = reader.read(name)
            reason = regions.not_finite()
        except StoreError as error:
            reason = str(error)
        if reason is None:
            self._dimensions.add(regions.features.shape[1])
        else:
            self._damaged[name] = reason
        return reason is None

    @property
    def known(self) -> dict[str, Any] | None:
        return _described(self._older - {name for _, name in self._to_replace})

    @property
    def has_news(self) -> bool:
        return bool(self._newer) or self._vouched is None or self._vouched.known != self.known

    def _log(self) -> None:
        if self._damaged:
            reasons = [f"{name}: {reason}" for name, reason in sorted(self._damaged.items())]
            words = "%s damaged in this folder: done anew: %s"
            logger.warning(words, _counted(self._damaged, "is", "are"), listed(reasons))
        replaced = set() if self._redo else {name for _, name in self._to_replace}
        then = "done anew" if self._redo else "taken as they are"
        if (older := self._older - replaced) and self.has_news:
            words = "%s there before this folder's record began: %s"
            logger.info(words, _counted(older, "was", "were"), then)
        if newer := self._newer - replaced:
            words = "%s come from elsewhere since this folder's last run: %s"
            logger.info(words, _counted(newer, "has", "have"), then)

    def require(self, dimension: int) -> None:
        """Raise OutputError where those that are kept have features of another dimension."""
        others = sorted(self._dimensions - {dimension})
        if others and not self._redo:
            raise OutputError(
                f"{self._stores.folder} holds images from elsewhere with features of dimension "
                f"{others[0]}, this model's have {dimension}: take another folder, or "
                "`foreign`=redo; `allow_mismatch`=true keeps them"
            )

    def remove(self) -> None:
        """Delete the files of those to be extracted again, before a record vouches for them.

        Raises OutputError.
        """
        for writer, name in self._to_replace:
            writer.remove(name)


def _described(names: Iterable[str]) -> dict[str, Any] | None:
    names = sorted(names)
    digest = hashlib.sha256("\n".join(names).encode(errors="surrogateescape")).hexdigest()
    return {"images": len(names), "names_sha256": digest} if names else None


def _counted(names: Sized, singular: str, plural: str) -> str:
    return f"1 image {singular}" if len(names) == 1 else f"{len(names)} images {plural}"
