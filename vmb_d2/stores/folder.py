"""Formats that keep each image in files of its own, in one folder."""

from __future__ import annotations

import contextlib
import os
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import ClassVar

from ..errors import OutputError
from ..structures.regions import RegionFeatures
from ..utils.files import sync_folder, write_whole
from .base import FeatureReader, FeatureWriter, output_errors

LONGEST_FILE_NAME = 255  # bytes, on every common file system


def names_below(folder: Path, suffix: str, leave_out: Collection[str] = ()) -> Iterator[str]:
    """Names of the images below a folder: paths of the files, without their ``suffix``.

    Args:
        leave_out: names of folders directly in it that are skipped.
    """
    for root, folders, files in os.walk(folder):
        prefix = "" if root == str(folder) else f"{Path(root).relative_to(folder).as_posix()}/"
        folders[:] = sorted(name for name in folders if prefix or name not in leave_out)
        for file in sorted(files):
            if file.endswith(suffix) and not file.startswith("."):
                yield prefix + file.removesuffix(suffix)


def first_file(
    folder: Path, is_image: Callable[[str], bool], leave_out: Collection[str] = ()
) -> Path | None:
    """The first file found below a folder whose name is an image's. No folder is listed whole.

    Args:
        leave_out: see :func:`names_below`.
    """
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            found = None
            if not entry.is_dir(follow_symlinks=False):
                is_first = is_image(entry.name) and not entry.name.startswith(".")
                found = Path(entry.path) if is_first else None
            elif entry.name not in leave_out:
                found = first_file(Path(entry.path), is_image)
            if found is not None:
                return found
    return None


class FolderWriter(FeatureWriter):
    """Writes an image's files, each whole or not at all, in the order of ``suffixes``.

    A name with slashes goes into subfolders. A folder is listed once, when it is first asked for an
    image in it, so that the shards of a large store list only their own folders.
    """

    suffixes: ClassVar[tuple[str, ...]]

    def _open(self) -> None:
        self._listed: set[str] = set()  # folders
        self._files: set[str] = set()  # in these
        self._unsynced = {self.path.parent}  # folders whose new names aren't synced yet
        self.path.mkdir(exist_ok=True)
        if not os.access(self.path, os.W_OK):
            raise OutputError(f"{self.path}: not writable")

    @classmethod
    def problems(cls, names):
        longest = LONGEST_FILE_NAME - len("..tmp") - max(map(len, cls.suffixes))
        for name in sorted(names):
            if any(len(os.fsencode(part)) > longest for part in name.split("/")):
                yield name, f"longer than the {longest} bytes that a file's name can have"

    @abstractmethod
    def contents(self, name: str, regions: RegionFeatures) -> Iterator[bytes]:
        """The content of the file of each suffix."""

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

    def changed_outside(self, names: Iterable[str], begin: float, end: float) -> set[str]:
        """Those images of which a file was last changed before ``begin`` or after ``end``.

        Times are in seconds since 1970. Raises OutputError.
        """
        folder = os.path.join(self.path, "")
        with output_errors(self.path):
            return {
                name
                for name in names
                for suffix in self.suffixes
                if not begin <= os.stat(folder + name + suffix).st_mtime <= end
            }

    def forget(self, name: str) -> None:
        """Take an image for one that isn't there; :meth:`write` replaces its files."""
        self._files.difference_update(name + suffix for suffix in self.suffixes)

    def remove(self, name: str) -> None:
        """Delete an image's files. Raises OutputError."""
        for suffix in reversed(self.suffixes):
            file = self.path / f"{name}{suffix}"
            with output_errors(file, "can't be deleted"):
                file.unlink(missing_ok=True)

    def write(self, name: str, regions: RegionFeatures) -> None:
        self._make_folder_of(name)
        for suffix, content in zip(self.suffixes, self.contents(name, regions), strict=True):
            file = self.path / f"{name}{suffix}"
            with output_errors(file, "can't be written"):
                write_whole(file, content)
        self._unsynced.update((self.path / name).parents[: name.count("/") + 1])
        self._files.update(name + suffix for suffix in self.suffixes)

    def _make_folder_of(self, name: str) -> None:
        """Make the subfolders of a name, but not the store itself should it have been deleted."""
        folder = (self.path / name).parent
        if folder != self.path and not folder.is_dir():
            with output_errors(folder, "can't be made"):
                os.stat(self.path)
                folder.mkdir(parents=True, exist_ok=True)

    def flush(self) -> None:
        """Sync the files' names; their content was synced when it was written."""
        with output_errors(self.path, "can't be written"):
            for folder in self._unsynced:
                sync_folder(folder)
        self._unsynced.clear()


class FolderReader(FeatureReader):
    """Reads images from files of their own; an image is there where its file ``suffix`` is."""

    suffix: ClassVar[str]

    def names(self) -> Iterator[str]:
        return names_below(self.path, self.suffix)

    def __contains__(self, name: str) -> bool:
        return (self.path / f"{name}{self.suffix}").is_file()
