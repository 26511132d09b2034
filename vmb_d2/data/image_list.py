"""Which images a run is about, and under which names their features are stored."""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ..errors import ConfigError, InputError
from ..structures.input_image import InputImage
from ..utils.text import listed

EXTENSIONS = ("png", "jpg", "jpeg")
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
        InputError: no such path, the folder can't be listed, or no image is in it.
    """
    source = os.fspath(source)
    if _is_single(source):
        return [source]
    endings = tuple(f".{extension.removeprefix('.').lower()}" for extension in extensions)
    paths: list[str] = []
    broken = folders = 0  # named like images
    others: Counter[str] = Counter()  # files, by their extension
    try:
        for path, kind in _entries(source, recursive):
            named = path.lower().endswith(endings)
            if recursive and (kind == "folder" or (kind == "lost" and not named)):
                paths.append(f"{path}/")
            elif kind == "folder":
                folders += named
            elif named:
                paths.append(path)
                broken += kind != "file" and not os.path.exists(path)
            elif kind == "file":
                others[os.path.splitext(path)[1].lower()] += 1
    except OSError as error:
        raise InputError(f"`input_dir`={source}: {error.filename}: {error.strerror}") from error
    not_taken = _not_taken(endings, others, folders)
    if not paths:
        hint = "" if recursive else " (`recursive`=true also looks into the folders in it)"
        names = ", ".join(endings)
        raise InputError(f"`input_dir`={source}: no {names} file in it{hint}{not_taken}")
    among = f" ({_counted(broken, 'broken link')} among them)" if broken else ""
    if among or not_taken:
        logger.info("%s: %d images%s%s", source, len(paths), among, not_taken)
    return sorted(paths)


def is_folder(path: str) -> bool:
    """Whether a path of :func:`list_images`, or its name, is of a folder that can't be listed."""
    return path.endswith("/")


def _entries(
    folder: str, recursive: bool, above: tuple[str, ...] = ()
) -> Iterator[tuple[str, str]]:
    """Path and kind of all in a folder whose names don't begin with a dot.

    The kind is ``"file"``; ``"folder"``, of one that isn't looked into or can't be listed;
    ``"lost"``, of a link that can't be followed; or ``"other"``, such as a pipe or a broken link.

    Args:
        folder: its path.
        recursive: look into the folders in it.
        above: the real paths of the folders that it lies in; a link to one of them isn't followed.

    Raises:
        OSError: the folder itself can't be listed.
    """
    real = os.path.realpath(folder)
    if real in above:
        return
    with os.scandir(folder) as scanned:
        entries = [entry for entry in scanned if not entry.name.startswith(".")]
    for entry in entries:
        try:
            kind = "file" if entry.is_file() else "folder" if entry.is_dir() else "other"
        except OSError:
            kind = "lost"
        if kind != "folder" or not recursive:
            yield entry.path, kind
            continue
        try:
            yield from _entries(entry.path, recursive, (*above, real))
        except OSError:
            yield entry.path, kind


def _not_taken(endings: tuple[str, ...], others: Counter[str], folders: int) -> str:
    """The end of a sentence about the images among ``others`` and the folders named like images."""
    counts = {k: n for k, n in others.most_common() if _ANY_EXTENSION.fullmatch(k)}
    parts = [f"{count} {kind}" for kind, count in counts.items()]
    if parts:
        kinds = ",".join(kind.removeprefix(".") for kind in (*endings, *counts))
        hint = f"the extensions [{kinds}], or a list of paths, take those that Pillow reads"
        parts[-1] += f" ({hint})"
    if folders:
        parts.append(f"{_counted(folders, 'folder')} named like an image")
    return f"; not taken: {', '.join(parts)}" if parts else ""


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _read_lines(path: str | Path, field: str) -> list[str]:
    """The lines of a text file that aren't blank, stripped. Raises InputError about ``field``."""
    try:
        # File names need not be UTF-8; surrogateescape keeps their bytes.
        text = Path(path).read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise InputError(f"`{field}`={path}: {error.strerror}") from error
    return [line.strip() for line in text.split("\n") if line.strip()]


def is_image_list(path: str | Path) -> bool:
    """Whether ``path`` is a text file whose first line is a path with an extension.

    Raises InputError where it can't be read.
    """
    if not os.path.isfile(path):
        return False
    first = next(iter(_read_lines(path, "input_dir")), "")
    return bool(re.fullmatch(r"[^\x00-\x08\x0e-\x1f]*[^/]\.\w{2,5}", first))


def read_image_lists(lists: Sequence[str | Path], folder: str | Path = "") -> list[str]:
    """Paths from text files with a path a line, sorted, each once.

    Args:
        lists: the text files.
        folder: what relative paths are relative to.

    Raises:
        InputError: a list can't be read, or none of them has a line.
    """
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
    name_of = output_name if naming == "mmf" else relative_to(folder)
    images = []
    for path in paths:
        if is_folder(path):  # no image's name ends in a slash
            below = relative_to(folder)(path) or os.path.normpath(path)
            images.append(InputImage(path, f"{below}/"))
            continue
        name = name_of(path)
        if name is None:
            raise InputError(f"{path} isn't in `input_dir`={folder}, so it has no relative name")
        if naming == "relative":
            name = os.path.splitext(name)[0]
        if not name:
            raise InputError(f"{path}: no name before its first dot; take `names`=relative")
        images.append(InputImage(path, name))
    return images


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


def without_excluded(
    images: Sequence[InputImage], path: str | Path, naming: str = "mmf", folder: str | Path = ""
) -> list[InputImage]:
    """``images`` without those that a text file with a name or path a line leaves out.

    A line means an image if it is its path, its path relative to ``folder``, or its name; with the
    naming ``"mmf"`` also if the line's own name up to its first dot is the image's.

    Raises:
        InputError: the file can't be read.
    """
    relative, lines = relative_to(folder), set(_read_lines(path, "exclude_list"))
    if naming == "mmf":
        lines |= {output_name(line) for line in lines}
    return [i for i in images if lines.isdisjoint((i.name, i.path, relative(i.path)))]


def select_images(
    images: Sequence[InputImage], start: int = 0, end: int | None = None
) -> list[InputImage]:
    """``images[start:end]``.

    Raises:
        InputError: two of them have one name; with a list of them.
    """
    selected = list(images[start:end])
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
