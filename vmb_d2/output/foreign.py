"""Images in a run's stores that its record doesn't vouch for: taken as they are, or done anew."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
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
    """Of which files a record tells: those last changed between its begin and its end.

    Attributes:
        begin, end: times of files, in seconds.
        died: whether a run didn't come to its end: what is newer is most probably its.
        known: what was older, and taken, before: see :attr:`ForeignImages.known`.
    """

    begin: float
    end: float
    died: bool = False
    known: Mapping[str, Any] | None = None


class ForeignImages:
    """Those of a run's images that are in its stores and that nothing vouches for.

    Where there is a record, a format with one file for all images is trusted: it checks itself
    when it is opened.

    Args:
        stores: of the run, not open yet.
        names: of its images.
        vouched: None where there is no record.
        redo: do anew those that are whole, too.

    Attributes:
        known: how many older ones are taken, and a hash of their names, as plain values; None
            where there is none.
        has_news: whether the record doesn't know of all that are taken.
    """

    def __init__(
        self, stores: StoreSet, names: Iterable[str], vouched: Vouched | None, redo: bool = False
    ):
        self._stores = stores
        self._names = list(names)
        self._vouched = vouched
        self._redo = redo
        self._damaged: dict[str, str] = {}
        self._older: set[str] = set()  # whole
        self._newer: set[str] = set()
        self._dimensions: set[int] = set()
        self._to_remove: list[tuple[FolderWriter, str]] = []

    def read_files(self) -> None:
        """Look into the formats with one file for all images, before they are opened for writing.

        Raises OutputError where an image would have to be replaced, which these formats can't.
        """
        for format_, _, place in self._stores.places():
            path = self._stores.folder / place
            if self._vouched is not None or not format_.one_file or not path.exists():
                continue
            try:
                reader = format_.reader(path)
            except StoreError:  # opening it for writing says so, or mends it
                continue
            with reader:
                there = [name for name in self._names if name in reader]
                self._say_that_it_takes_time(path, len(there))
                anew = there if self._redo else [n for n in there if not self._is_whole(reader, n)]
                if anew:
                    why = self._damaged.get(anew[0], "output.foreign=redo")
                    raise OutputError(
                        f"{path}: was there before this folder's record began, and an image in it "
                        f"can't be replaced, as {anew[0]!r} would be ({why}): move it away, or "
                        "take another folder"
                    )
                self._older.update(there)

    def read_folders(self) -> None:
        """Look at the files of single images, once the stores are open.

        The stores then take those to be done anew for images that aren't there. Raises OutputError.
        """
        for format_, writer in self._stores.folders():
            there = writer.present(self._names)
            older, newer = self._unvouched(writer, there)
            self._say_that_it_takes_time(writer.path, len(older) + len(newer))
            reader = format_.reader(writer.path)
            ours = self._vouched is not None and self._vouched.died
            for names, whole in ((older, self._older), (newer, self._newer)):
                for name in names:
                    is_whole = self._is_whole(reader, name)
                    if is_whole and ours and names is newer:
                        continue
                    if is_whole:
                        whole.add(name)
                    if self._redo or not is_whole:
                        writer.forget(name)
                        self._to_remove.append((writer, name))
        self._say()

    @staticmethod
    def _say_that_it_takes_time(path: Path, count: int) -> None:
        if count > _MANY:
            words = "%s: reading %d images that this folder's record doesn't vouch for"
            logger.info(words, path, count)

    def _unvouched(self, writer: FolderWriter, names: set[str]) -> tuple[list[str], list[str]]:
        """Names of files that are older than the record, and of those that are newer."""
        if self._vouched is None:
            return sorted(names), []
        older, newer = writer.changed_outside(names, self._vouched.begin, self._vouched.end)
        if self._vouched.known == _described(older) and not self._redo:
            self._older |= older
            older = set()
        return sorted(older), sorted(newer)

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

    def _anew(self) -> set[str]:
        return {name for _, name in self._to_remove}

    @property
    def known(self) -> dict[str, Any] | None:
        return _described(self._older - self._anew())

    @property
    def has_news(self) -> bool:
        return bool(self._newer) or self._vouched is None or self._vouched.known != self.known

    def _say(self) -> None:
        if self._damaged:
            reasons = [f"{name}: {reason}" for name, reason in sorted(self._damaged.items())]
            words = "%s damaged in this folder: done anew: %s"
            logger.warning(words, _counted(len(reasons), "is", "are"), listed(reasons))
        anew = set() if self._redo else self._anew()
        then = "taken as they are; output.foreign=redo does them anew"
        if self._redo:
            then = "done anew"
        if (older := self._older - anew) and self.has_news:
            count = _counted(len(older), "was", "were")
            logger.info("%s there before this folder's record began: %s", count, then)
        if newer := self._newer - anew:
            count = _counted(len(newer), "has", "have")
            words = "%s come from elsewhere since this folder's last run: %s"
            logger.info(words, count, then)

    def require(self, dimension: int) -> None:
        """Raise OutputError where those that are taken have features of another dimension."""
        others = sorted(self._dimensions - {dimension})
        if others and not self._redo:
            raise OutputError(
                f"{self._stores.folder} holds images from elsewhere with features of dimension "
                f"{others[0]}, this model's have {dimension}: take another folder, or "
                "output.foreign=redo; output.allow_mismatch=true keeps them"
            )

    def remove(self) -> None:
        """Delete the files of those to be done anew, before a record vouches for them.

        Raises OutputError.
        """
        for writer, name in self._to_remove:
            writer.remove(name)


def _described(names: Iterable[str]) -> dict[str, Any] | None:
    names = sorted(names)
    digest = hashlib.sha256("\n".join(names).encode(errors="surrogateescape")).hexdigest()
    return {"images": len(names), "names_sha256": digest} if names else None


def _counted(count: int, singular: str, plural: str) -> str:
    return f"{count} image {singular}" if count == 1 else f"{count} images {plural}"
