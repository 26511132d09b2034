"""Names of the classes, from a file like MMF's ``visual_genome_categories.json``."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import ConfigError, DownloadError
from ..utils.downloads import fetch, is_url

CLASSES_URL = "https://dl.fbaipublicfiles.com/pythia/data/visual_genome_categories.json"

BACKGROUND = "background"
EXAMPLE = '{"categories": [{"id": 1, "name": "yolk"}, ...]}'

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClassNames:
    """What the class indices of a store (``objects``, the columns of ``cls_prob``) are called.

    Attributes:
        names: of the classes in order, the background not among them; None where unknown.
        with_background: whether the background was extracted: then it is index 0, and the
            classes begin at 1.
        source: where the names come from, for errors.
    """

    names: tuple[str, ...] | None = None
    with_background: bool = False
    source: str = ""

    def for_columns(self, columns: int) -> ClassNames:
        """The names for a ``cls_prob`` of so many columns.

        One column more than there are names is the background's. Raises ConfigError for any
        other number.
        """
        if self.names is None:
            return self
        if columns != len(self.names) + 1:
            self.require(columns - self.with_background)
        return replace(self, with_background=columns > len(self.names))

    def require(self, classes: int) -> None:
        """Raise ConfigError unless there are names of so many classes, without the background."""
        if self.names is not None and len(self.names) != classes:
            raise ConfigError(
                f"{self.source} has {len(self.names)} names, but there are {classes} classes: "
                "give the file of their names"
            )

    def number(self, index: int) -> int | None:
        """The class at ``index``, counted from 0 without the background; None for that."""
        return None if self.with_background and index == 0 else index - self.with_background

    def __getitem__(self, index: int) -> str:
        """The name at ``index``; ``class 17`` for index 17 where names aren't known.

        Raises ConfigError where there are names, and none for this index.
        """
        number = self.number(index)
        if number is None:
            return BACKGROUND
        if self.names is None:
            return f"class {index}"
        if not 0 <= number < len(self.names):
            names = len(self.names)
            raise ConfigError(f"{self.source} has {names} names, none for the class {index}")
        return self.names[number]


NO_NAMES = ClassNames()  # classes go by their index


def read_class_names(
    source: str | None, cache_dir: Path, with_background: bool = False
) -> ClassNames:
    """Read the names of the classes.

    Args:
        source: path or URL of a JSON file ``{"categories": [{"id": 1, "name": "yolk"}, ...]}``,
            with the background as id 0 or without it. A URL is fetched once. None for
            :data:`CLASSES_URL`.
        cache_dir: for what is fetched.
        with_background: whether the background was extracted.

    Raises:
        ConfigError: a file that can't be read, or isn't one of class names. An id 0 that isn't
            called background is such: with it, every class would get its neighbour's name.
        DownloadError: the URL can't be fetched.
    """
    source = source or CLASSES_URL
    path = fetch(source, cache_dir) if is_url(source) else Path(source)
    try:
        categories = json.loads(path.read_bytes())["categories"]
        names = {int(entry["id"]): " ".join(entry["name"].split()) for entry in categories}
    except OSError as error:
        raise ConfigError(f"{path}: can't be read: {error.strerror}") from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path}: is no JSON {EXAMPLE}") from error
    if len(names) < len(categories):
        raise ConfigError(f"{path}: an id occurs twice")
    first = names.pop(0, BACKGROUND)
    if first.strip("_").lower() != BACKGROUND:
        raise ConfigError(f"{path}: id 0 is {first!r}, but 0 is the background: ids begin at 1")
    ordered = tuple(names[number] for number in sorted(names))
    return ClassNames(ordered, with_background, str(path))


def class_names_or_numbers(
    source: str | None, cache_dir: Path, with_background: bool = False
) -> ClassNames:
    """As :func:`read_class_names`, for uses that can do without names; "none" gives none.

    Where no source is given and the usual one can't be fetched, a warning says so and the classes
    are called by their index.
    """
    if source != "none":
        try:
            return read_class_names(source, cache_dir, with_background)
        except DownloadError as error:
            if source is not None:
                raise
            logger.warning("classes go by number: %s, or give a file of their names", error)
    return ClassNames(None, with_background)
