"""Formats that keep each image in files of its own, in one folder."""

from __future__ import annotations

import contextlib
import os
from abc import abstractmethod
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import ClassVar

from ..errors import OutputError
from ..structures.regions import RegionFeatures
from ..utils.files import sync_folder, write_whole
from .base import FeatureReader, FeatureWriter

LONGEST_FILE_NAME = 255  # bytes, on every common file system


def scan(folder: Path, suffixes: tuple[str, ...], leave_out: Collection[str] = ()) -> Iterator[str]:
    """Names of the images below ``folder`` that have a file with each of ``suffixes``.

    Args:
        leave_out: names of folders in it that aren't looked into.
    """
    for root, folders, files in os.walk(folder):
        prefix = "" if root == str(folder) else f"{Path(root).relative_to(folder).as_posix()}/"
        folders[:] = sorted(name for name in folders if prefix or name not in leave_out)
        yield from (prefix + name for name in sorted(_whole(files, suffixes)))


def first_file(
    folder: Path, suffix: str, but: str = "\0", leave_out: Collection[str] = ()
) -> Path | None:
    """A file below a folder whose name ends with ``suffix`` and not with ``but``; the first found.

    Args:
        leave_out: see :func:`scan`.
    """
    folders = [folder]
    while folders:
        below = []
        with contextlib.suppress(OSError), os.scandir(searched := folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    if searched is not folder or entry.name not in leave_out:
                        below.append(entry.path)
                elif (
                    entry.name.endswith(suffix)
                    and not entry.name.startswith(".")
                    and not entry.name.endswith(but)
                ):
                    return Path(entry.path)
        folders += below
    return None


def _whole(files: Iterable[str], suffixes: tuple[str, ...]) -> Iterator[str]:
    """What is before the suffixes, of those files of one folder that are there with each."""
    *others, own = suffixes
    there = set(files)
    for file in there:
        name = file.removesuffix(own)
        if name != file and not file.startswith(".") and all(name + s in there for s in others):
            yield name


def _has_part_beyond(longest: int, name: str) -> bool:
    """Whether a part of a name has more bytes than that. A character has up to 4."""
    return any(len(os.fsencode(part)) > longest for part in name.split("/"))


class FolderWriter(FeatureWriter):
    """Writes an image's files, each whole or not at all, in the order of ``suffixes``.

    A name with slashes goes into subfolders. A folder is listed once, when it is first asked for an
    image in it: of shards that share a large store, each looks at its own folders only.
    """

    suffixes: ClassVar[tuple[str, ...]]

    def __init__(self, path: str | Path, dtype: str = "float32"):
        super().__init__(path, dtype)
        self._listed: set[str] = set()  # folders
        self._files: set[str] = set()  # in these
        self._unsynced = {self.path.parent}  # folders in which new names can still get lost
        try:
            self.path.mkdir(exist_ok=True)
            if not os.access(self.path, os.W_OK):
                raise OutputError(f"{path}: not writable")
        except OSError as error:
            raise OutputError(f"{path}: {error.strerror}") from error

    @classmethod
    def problems(cls, names):
        names = set(names)
        longest = LONGEST_FILE_NAME - len("..tmp") - max(map(len, cls.suffixes))
        # Of a million names only a few are looked at closely.
        suspects = {
            name for name in names if len(name) > longest // 4 and _has_part_beyond(longest, name)
        }
        for suffix in cls.suffixes[:-1]:
            ending = suffix.removesuffix(cls.suffixes[-1])
            suspects |= {name[: -len(ending)] for name in names if name.endswith(ending)} & names
        for name in sorted(suspects):
            if _has_part_beyond(longest, name):
                yield name, f"longer than the {longest} bytes that a file's name can have"
            for suffix in cls.suffixes[:-1]:  # x_info.npy belongs to x, and features to x_info
                other = f"{name}{suffix}".removesuffix(cls.suffixes[-1])
                if other in names:
                    yield name, f"{name}{suffix} would also be a file of {other}"

    @abstractmethod
    def contents(self, name: str, regions: RegionFeatures) -> Iterator[bytes]:
        """What to write into the file of each suffix."""

    def __contains__(self, name: str) -> bool:
        return bool(self.present([name]))

    def present(self, names: Iterable[str]) -> set[str]:
        names = list(names)
        for folder in {name.rpartition("/")[0] for name in names} - self._listed:
            self._list(folder)
        for suffix in reversed(self.suffixes):
            names = [name for name in names if name + suffix in self._files]
        return set(names)

    def _list(self, folder: str) -> None:
        try:
            files = [file for file in os.listdir(self.path / folder) if file[0] != "."]
        except (FileNotFoundError, NotADirectoryError):
            files = []
        except OSError as error:
            raise OutputError(f"{self.path / folder}: {error.strerror}") from error
        self._files.update([f"{folder}/{file}" for file in files] if folder else files)
        self._listed.add(folder)

    def changed_outside(
        self, names: Collection[str], begin: float, end: float
    ) -> tuple[set[str], set[str]]:
        """Those images of which a file was last changed before a time, and after another one.

        Raises OutputError.
        """
        before, after = set(), set()
        folder = os.path.join(self.path, "")
        try:
            for suffix in self.suffixes:
                for name in names:
                    changed = os.stat(folder + name + suffix).st_mtime
                    if not begin <= changed <= end:
                        (before if changed < begin else after).add(name)
        except OSError as error:
            raise OutputError(f"{error.filename}: {error.strerror}") from error
        return before - after, after

    def forget(self, name: str) -> None:
        """Take an image for one that isn't there; :meth:`write` replaces its files."""
        self._files.difference_update(name + suffix for suffix in self.suffixes)

    def remove(self, name: str) -> None:
        """Delete an image's files. Raises OutputError."""
        for suffix in reversed(self.suffixes):
            file = self.path / f"{name}{suffix}"
            try:
                file.unlink(missing_ok=True)
            except OSError as error:
                raise OutputError(f"{file}: can't be deleted: {error.strerror}") from error

    def write(self, name: str, regions: RegionFeatures) -> None:
        self._check_owner(name)
        self._make_folder_of(name)
        for suffix, content in zip(self.suffixes, self.contents(name, regions), strict=True):
            file = self.path / f"{name}{suffix}"
            try:
                write_whole(file, content)
            except OSError as error:
                raise OutputError(f"{file}: can't be written: {error.strerror}") from error
        self._unsynced.update((self.path / name).parents[: name.count("/") + 1])
        self._files.update(name + suffix for suffix in self.suffixes)

    def _check_owner(self, name: str) -> None:
        """Raise OutputError where a file of the image is one of another that is there already."""
        for suffix in self.suffixes[:-1]:
            ending = suffix.removesuffix(self.suffixes[-1])
            for other in (name + ending, name.removesuffix(ending)):
                if other != name and other in self:
                    raise OutputError(
                        f"{self.path}: {name!r} would share a file with {other!r}, which is there"
                    )

    def _make_folder_of(self, name: str) -> None:
        """Make the subfolders of a name, but not the store itself should it have been deleted."""
        folder = (self.path / name).parent
        if folder == self.path or folder.is_dir():
            return
        try:
            os.stat(self.path)
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{folder}: can't be made: {error.strerror}") from error

    def flush(self) -> None:
        """Make the files' names safe; what is in them is on the disk when it is written."""
        try:
            for folder in self._unsynced:
                sync_folder(folder)
        except OSError as error:
            raise OutputError(f"{self.path}: can't be written: {error.strerror}") from error
        self._unsynced.clear()

    def close(self) -> None:
        self.flush()

    def abandon(self) -> None:
        """Nothing to do."""


class FolderReader(FeatureReader):
    """Reads images from files of their own; those without the last of ``suffixes`` are none."""

    suffixes: ClassVar[tuple[str, ...]]

    def names(self) -> Iterator[str]:
        return scan(self.path, self.suffixes)

    def __len__(self) -> int:
        return sum(1 for _ in self.names())

    def __contains__(self, name: str) -> bool:
        return all((self.path / f"{name}{suffix}").is_file() for suffix in self.suffixes)
