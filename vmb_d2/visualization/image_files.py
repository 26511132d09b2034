"""Finding the image that a stored name is of."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ..data.image_list import is_folder, list_images, output_name, root_of
from ..errors import ImageReadError


class ImageFiles:
    """The images in a folder and its subfolders, or one image, by name.

    An image has three names: its path below the folder; the same without the extension; and the
    same up to the first dot of the file's name, as MMF stores it. An earlier one goes before a
    later one of another image.

    Args:
        source: a folder, or one file.

    Raises:
        InputError: no such path, it can't be read, or no image is in it.
    """

    def __init__(self, source: str | Path):
        self.source = Path(source)
        paths = [p for p in list_images(source, recursive=True) if not is_folder(p)]
        self._named: tuple[dict[str, list[str]], ...] = ({}, {}, {})
        for path in paths:
            for named, name in zip(self._named, _names_of(path, root_of(source)), strict=True):
                named.setdefault(name, []).append(path)

    @property
    def is_single(self) -> bool:
        """Whether it is one image, not a folder of them."""
        return self.source.is_file()

    def names(self) -> Iterator[str]:
        """All names of all images, each once."""
        return iter(dict.fromkeys(name for named in self._named for name in named))

    def find(self, name: str) -> Path | None:
        """The image of that name; None where there is none.

        Raises ImageReadError where it could be either of two.
        """
        for named in self._named:
            found = named.get(name, [])
            if len(found) > 1:
                raise ImageReadError(f"it could be {found[0]} or {found[1]}")
            if found:
                return Path(found[0])
        return None


def _names_of(path: str, folder: str | Path) -> tuple[str, str, str]:
    relative = Path(os.path.relpath(path, folder or ".")).as_posix()
    parent = relative[: -len(os.path.basename(relative))]
    return relative, os.path.splitext(relative)[0], parent + output_name(relative)
