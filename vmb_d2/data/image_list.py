"""Which images a run is about, and under which names their features are stored."""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from ..errors import ConfigError, InputError
from ..structures.input_image import InputImage
from ..utils.text import listed

EXTENSIONS = (".png", ".jpg", ".jpeg")
# Other extensions of images, whether Pillow reads them or not.
_ANY_EXTENSION = re.compile(
    r"\.(apng|avif|bmp|dib|dng|gif|hei[cf]|ico|j2k|jfif|jp2|jpe|jpe?g|jpx|jxl|p[bgnp]m|pcx|png|psd"
    r"|tga|tiff?|webp)"
)
NAMINGS = ("mmf", "relative", "relative_with_extension")

logger = logging.getLogger(__name__)


def output_name(path: str | Path) -> str:
    """The name under which MMF stores an image: the file's name up to its first dot."""
    return os.path.basename(path).split(".")[0]


def _checked_extensions(extensions: Iterable[str]) -> tuple[str, ...]:
    """Extensions in lower case, with their dot, each once."""
    found = []
    for extension in extensions:
        if not re.fullmatch(r"\.?\w([\w.+-]*\w)?", extension):
            raise ConfigError(
                "is no extension, such as png or .tif", field="extensions", value=extension
            )
        found.append(f".{extension.removeprefix('.').lower()}")
    if not found:
        raise ConfigError("`extensions` is empty: needed is a list such as [png,jpg]")
    return tuple(dict.fromkeys(found))


def list_images(
    source: str | Path, recursive: bool = False, extensions: Sequence[str] = EXTENSIONS
) -> list[str]:
    """Image files in a folder, sorted by path; or the one file that ``source`` is.

    A broken link, a pipe or a device with the name of an image is listed, and fails when it is
    read. A folder in it that can't be listed is listed itself, with a slash at the end, and fails
    as well; see :func:`is_folder`. A line in the log counts the images that aren't listed.

    Args:
        source: a folder or file.
        recursive: also list the folders in it, links to folders included. Files and folders whose
            name begins with a dot are left out.
        extensions: of images, in upper or lower case, with or without the dot.

    Raises:
        ConfigError: there is no extension, or one is none.
        InputError: no such path, the folder can't be read, or no image is in it.
    """
    source = os.fspath(source)
    folder = _Folder(_checked_extensions(extensions), recursive)
    if os.path.isfile(source) or (_is_single(source) and folder.is_named(source)):
        return [source]
    try:
        folder.list(source)
    except OSError as error:
        raise InputError(f"`input_dir`={source}: {error.filename}: {error.strerror}") from error
    if not folder.paths:
        hint = "" if recursive else " (`recursive`=true also looks into the folders in it)"
        names = ", ".join(folder.extensions)
        raise InputError(f"`input_dir`={source}: no {names} file in it{hint}{folder.not_taken()}")
    if remarks := folder.broken() + folder.not_taken():
        logger.info("%s: %d images%s", source, len(folder.paths), remarks)
    return sorted(folder.paths)


def is_folder(path: str) -> bool:
    """Whether a path of :func:`list_images`, or its name, is of a folder that can't be listed."""
    return path.endswith("/")


class _Folder:
    """The paths of the images in a folder, and counts of what isn't listed.

    Args:
        extensions: in lower case, with the dot.
        recursive: also list the folders in it.
    """

    def __init__(self, extensions: tuple[str, ...], recursive: bool):
        self.extensions = extensions
        self.recursive = recursive
        self.paths: list[str] = []
        self._others: Counter[str] = Counter()  # files, by their extension
        self._folders = 0  # named like images
        self._broken = 0  # links named like images

    def is_named(self, name: str) -> bool:
        """Whether a name is an image's."""
        return name.lower().endswith(self.extensions)

    def list(self, folder: str, above: frozenset = frozenset()) -> None:
        """List a folder, and those in it.

        Args:
            folder: its path.
            above: device and inode of the folders that it lies in; a link to one isn't followed.

        Raises:
            OSError: the folder itself can't be listed.
        """
        below = []
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                try:
                    is_file = entry.is_file()
                    is_folder = not is_file and entry.is_dir()
                except OSError:  # a link to itself, or one that can't be followed
                    is_file, is_folder = False, self.recursive and not self.is_named(entry.name)
                if is_folder:
                    if self.recursive:
                        below.append(entry.path)
                    else:
                        self._folders += self.is_named(entry.name)
                elif self.is_named(entry.name):
                    self.paths.append(entry.path)
                    self._broken += not is_file and not os.path.exists(entry.path)
                elif is_file:
                    self._others[os.path.splitext(entry.name)[1].lower()] += 1
        for path in below:
            try:
                status = os.stat(path)
                identity = (status.st_dev, status.st_ino)
                if identity not in above:
                    self.list(path, above | {identity})
            except OSError:
                self.paths.append(f"{path}/")

    def broken(self) -> str:
        return f" ({_counted(self._broken, 'broken link')} among them)" if self._broken else ""

    def not_taken(self) -> str:
        """The images that aren't listed, as the end of a sentence; empty where there is none."""
        counts = {k: n for k, n in self._others.most_common() if _ANY_EXTENSION.fullmatch(k)}
        parts = []
        if counts:
            kinds = ",".join(kind.removeprefix(".") for kind in (*self.extensions, *counts))
            parts.append(
                ", ".join(f"{count} {kind}" for kind, count in counts.items())
                + f" (the extensions [{kinds}], or a list of paths, take those that Pillow reads)"
            )
        if self._folders:
            parts.append(_counted(self._folders, "folder", " named like an image"))
        return f"; not taken: {', '.join(parts)}" if parts else ""


def _counted(count: int, noun: str, rest: str = "") -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}{rest}"


def _read_lines(path: str | Path, field: str) -> list[str]:
    """The lines of a text file that aren't blank, stripped. Raises InputError about ``field``."""
    try:
        # File names need not be UTF-8; surrogateescape keeps their bytes.
        text = Path(path).read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise InputError(f"`{field}`={path}: {error.strerror}") from error
    return [line.strip() for line in text.split("\n") if line.strip()]


def is_image_list(path: str | Path) -> bool:
    """Whether ``path`` is a text file whose first line is a path.

    This is the path of an existing file or folder, or one that ends in an extension. Blank lines
    before it are skipped. False for a file that can't be read.
    """
    if not os.path.isfile(path):
        return False
    try:
        with open(path, "rb") as file:
            begin = file.read(4096)
    except OSError:
        return False
    text = begin.decode("utf-8-sig", errors="surrogateescape").strip()
    line = text.partition("\n")[0].strip()
    if not line or re.search(r"[\x00-\x08\x0e-\x1f]", text):
        return False
    return bool(re.search(r"[^/]\.\w{2,5}$", line)) or os.path.exists(line)


def read_image_lists(lists: Iterable[str | Path], folder: str | Path = "") -> list[str]:
    """Paths from text files with a path a line, sorted, each once.

    Args:
        lists: the text files.
        folder: what relative paths are relative to.

    Raises:
        InputError: a list can't be read, or none of them has a line.
    """
    lists = list(lists)
    lines = {line for path in lists for line in _read_lines(path, "input_list")}
    if not lines:
        raise InputError(f"`input_list`={', '.join(map(str, lists))}: no path in it")
    return sorted({os.path.normpath(os.path.join(folder, line)) for line in lines})


def name_images(
    paths: Sequence[str], naming: str = "mmf", folder: str | Path = ""
) -> list[InputImage]:
    """Give each image its name.

    Args:
        paths: of image files.
        naming: ``"mmf"``, the file's name up to its first dot; ``"relative"``, the path relative
            to ``folder`` without the extension; ``"relative_with_extension"``, with it.
        folder: see ``naming``.

    Raises:
        ConfigError: no such naming.
        InputError: a name is empty, or a path outside of ``folder`` has to be relative to it.
    """
    if naming not in NAMINGS:
        raise ConfigError(field="names", value=naming, valid=NAMINGS)
    return list(map(InputImage, paths, _names(paths, naming, folder)))


def _names(paths: Iterable[str], naming: str, folder: str | Path) -> Iterator[str]:
    name_of = output_name if naming == "mmf" else relative_to(folder)
    for path in paths:
        if is_folder(path):  # no image's name ends in a slash
            yield f"{relative_to(folder)(path) or os.path.normpath(path)}/"
            continue
        name = name_of(path)
        if name is None:
            raise InputError(f"{path} isn't in `input_dir`={folder}, so it has no relative name")
        if naming == "relative":
            name = os.path.splitext(name)[0]
        if not name:
            raise InputError(f"{path}: no name before its first dot; take `names`=relative")
        yield name


def root_of(source: str | Path) -> str:
    """The folder that names are relative to: ``source``, or the folder of a single image."""
    return os.path.dirname(source) if _is_single(source) else os.fspath(source)


def _is_single(source: str | Path) -> bool:
    """Whether a path exists and isn't a folder."""
    return os.path.lexists(source) and not os.path.isdir(source)


def relative_to(folder: str | Path) -> Callable[[str], str | None]:
    """A function that gives a path relative to ``folder``, with slashes; None for one outside."""
    folder = os.path.normpath(folder or ".")
    prefix = "" if folder == "." else os.path.join(folder, "")
    begin = len(prefix)

    def relative(path: str) -> str | None:
        path = os.path.normpath(path)
        below = path.startswith(prefix) and not os.path.isabs(path[begin:])
        found = path[begin:].replace(os.sep, "/")
        return found if below and not f"{found}/".startswith("../") else None

    return relative


class ExcludeList:
    """Images to leave out, from a text file with a name or path a line.

    An image is in it if a line is its path, its path relative to ``folder``, or its name; with the
    naming ``"mmf"`` also if a line's own name up to its first dot is the image's.

    Raises:
        InputError: the file can't be read.
    """

    def __init__(self, path: str | Path, naming: str = "mmf", folder: str | Path = ""):
        self._relative = relative_to(folder)
        self.lines = set(_read_lines(path, "exclude_list"))
        if naming == "mmf":
            self.lines |= {output_name(line) for line in self.lines}

    def __contains__(self, image: InputImage) -> bool:
        path, name = image
        return name in self.lines or path in self.lines or self._relative(path) in self.lines


def select_images(
    images: Sequence[InputImage],
    exclude: ExcludeList | Sequence[InputImage] = (),
    start: int = 0,
    end: int | None = None,
) -> list[InputImage]:
    """``images`` without those excluded, then ``[start:end]`` of the rest.

    Raises:
        InputError: two of the result have one name; with a list of them.
    """
    selected = [image for image in images if image not in exclude][start:end]
    if len({name for _, name in selected}) == len(selected):
        return selected
    owners: dict[str, str] = {}
    clashes = []
    for path, name in selected:
        other = owners.setdefault(name, path)
        if other != path:
            clashes.append(f"{other} and {path} (both {name})")
    if clashes:
        raise InputError(
            f"two images would be stored under one name: {listed(clashes)}; rename one, put it in "
            "`exclude_list`, or take `names`=relative or relative_with_extension"
        )
    return selected
