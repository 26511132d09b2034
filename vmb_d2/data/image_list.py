"""Which images a run is about, and under which names their features are stored."""

from __future__ import annotations

import contextlib
import gc
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
# What images are called too, whether Pillow reads them or not.
_ANY_EXTENSION = re.compile(
    r"\.(apng|avif|bmp|dib|dng|gif|hei[cf]|ico|j2k|jfif|jp2|jpe|jpe?g|jpx|jxl|p[bgnp]m|pcx|png|psd"
    r"|tga|tiff?|webp)"
)
NAMINGS = ("mmf", "relative", "relative_with_extension")

logger = logging.getLogger(__name__)


def output_name(path: str | Path) -> str:
    """The name under which MMF stores an image: the file's name up to its first dot."""
    return os.path.basename(path).split(".")[0]


def extension_list(extensions: Iterable[str]) -> tuple[str, ...]:
    """Extensions in lower case, with their dot, each once.

    Raises ConfigError where there is none, or one is no extension.
    """
    found = []
    for extension in extensions:
        if not re.fullmatch(r"\.?\w([\w.+-]*\w)?", extension):
            raise ConfigError(f"input.extensions={extension}: an extension, such as png or .tif")
        found.append(f".{extension.removeprefix('.').lower()}")
    if not found:
        raise ConfigError("input.extensions is empty: extensions, such as [png,jpg]")
    return tuple(dict.fromkeys(found))


def list_images(
    source: str | Path, recursive: bool = False, extensions: Sequence[str] = EXTENSIONS
) -> list[str]:
    """Image files in a folder, sorted by path; or the one file that ``source`` is.

    What is named like an image and isn't a folder is among them, so that a broken link or a pipe
    fails when it is read. So does a folder below that can't be listed, which is among them with a
    slash at the end (:func:`is_folder`). One line in the log counts what is there and isn't taken.

    Args:
        source: a folder or file.
        recursive: also in the folders below it, links to folders included. Files and folders whose
            name begins with a dot are left out.
        extensions: of images, in any case, with or without the dot.

    Raises:
        ConfigError: see :func:`extension_list`.
        InputError: no such path, the folder can't be read, or no image is in it.
    """
    source = os.fspath(source)
    folder = _Folder(extension_list(extensions), recursive)
    if os.path.isfile(source) or (_is_single(source) and folder.is_named(source)):
        return [source]
    try:
        folder.list(source)
    except OSError as error:
        raise InputError(f"input.dir={source}: {error.filename}: {error.strerror}") from error
    if not folder.paths:
        hint = "" if recursive else " (input.recursive=true looks below it too)"
        names = ", ".join(folder.extensions)
        raise InputError(f"input.dir={source}: no {names} file in it{hint}{folder.not_taken()}")
    if remarks := folder.broken() + folder.not_taken():
        logger.info("%s: %d images%s", source, len(folder.paths), remarks)
    return sorted(folder.paths)


def is_folder(path: str) -> bool:
    """Whether a path of :func:`list_images`, or its name, is a folder's that can't be listed."""
    return path.endswith("/")


class _Folder:
    """What a folder holds: the images' paths, and counts of what isn't taken.

    Args:
        extensions: in lower case, with the dot.
        recursive: look into the folders below, too.
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
        """``above`` are the folders on the way here: a link to one of them ends there.

        Raises OSError where the folder itself can't be listed.
        """
        below = []
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                try:
                    is_file = entry.is_file()
                    is_folder = not is_file and entry.is_dir()
                except OSError:  # a link that loops, or nobody may follow
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
        """What is there and not taken, as the end of a sentence; empty where all is."""
        counts = {k: n for k, n in self._others.most_common() if _ANY_EXTENSION.fullmatch(k)}
        parts = []
        if counts:
            kinds = ",".join(kind.removeprefix(".") for kind in (*self.extensions, *counts))
            parts.append(
                ", ".join(f"{count} {kind}" for kind, count in counts.items())
                + f" ('input.extensions=[{kinds}]' or input.list= takes those that Pillow reads)"
            )
        if self._folders:
            parts.append(_counted(self._folders, "folder", " named like an image"))
        return f"; not taken: {', '.join(parts)}" if parts else ""


def _counted(count: int, noun: str, rest: str = "") -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}{rest}"


def read_lines(path: str | Path, option: str) -> list[str]:
    """The lines of a text file that aren't blank, without the white space around them.

    Raises InputError, which names ``option``.
    """
    try:
        # File names need not be UTF-8; surrogateescape keeps their bytes.
        text = Path(path).read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise InputError(f"{option}={path}: {error.strerror}") from error
    return [line.strip() for line in text.split("\n") if line.strip()]


def is_image_list(path: str | Path) -> bool:
    """Whether ``path`` is a text file with paths in it, as its first line shows.

    That is one of an existing file or folder, or one that ends in an extension. Blank lines before
    it don't matter. A path that can't be read isn't one.
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
    lines = {line for path in lists for line in read_lines(path, "input.list")}
    if not lines:
        raise InputError(f"input.list={', '.join(map(str, lists))}: no path in it")
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
        raise ConfigError(f"input.names={naming}: valid are {', '.join(NAMINGS)}")
    with _no_collection():
        return list(map(InputImage, paths, _names(paths, naming, folder)))


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """A million new objects would start the garbage collector again and again, to find nothing."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _names(paths: Iterable[str], naming: str, folder: str | Path) -> Iterator[str]:
    name_of = output_name if naming == "mmf" else relative_to(folder)
    for path in paths:
        if is_folder(path):  # no image's name ends in a slash
            yield f"{relative_to(folder)(path) or os.path.normpath(path)}/"
            continue
        name = name_of(path)
        if name is None:
            raise InputError(f"{path} is not below input.dir={folder}, so it has no relative name")
        if naming == "relative":
            name = os.path.splitext(name)[0]
        if not name:
            raise InputError(
                f"{path}: has no name before its first dot; input.names=relative has one"
            )
        yield name


def root_of(source: str | Path) -> str:
    """The folder that names are relative to: ``source``, or the folder of a single image."""
    return os.path.dirname(source) if _is_single(source) else os.fspath(source)


def _is_single(source: str | Path) -> bool:
    """Whether a path is something else than a folder."""
    return os.path.lexists(source) and not os.path.isdir(source)


def relative_to(folder: str | Path) -> Callable[[str], str | None]:
    """What gives a path relative to ``folder``, with slashes between; None where it isn't below."""
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

    A line means an image if it is its path, its path relative to the folder, or its name; under
    MMF's naming also if its own name up to the first dot is the image's. Raises InputError.
    """

    def __init__(self, path: str | Path, naming: str = "mmf", folder: str | Path = ""):
        self._relative = relative_to(folder)
        self.lines = set(read_lines(path, "input.exclude_list"))
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
    """``images`` less those excluded, then ``[start:end]`` of the rest.

    Raises InputError where two of the result have one name, with a list of them.
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
            f"two images would be stored under one name, in {listed(clashes)}; rename one, put it "
            "in input.exclude_list, or name them otherwise: input.names=relative or "
            "relative_with_extension"
        )
    return selected
