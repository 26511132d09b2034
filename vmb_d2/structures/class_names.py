"""Names of the classes and attributes, from MMF's JSON, Visual Genome's lists or a label map."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import ConfigError, DownloadError
from ..utils.downloads import fetch, is_url

CLASSES_URL = "https://dl.fbaipublicfiles.com/pythia/data/visual_genome_categories.json"

BACKGROUND = "background"
EXAMPLE = '{"categories": [{"id": 1, "name": "yolk"}, ...]}'
NONE = "none"  # in place of a file: classes go by their index

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClassNames:
    """What the classes and attributes of a store are called.

    Classes are indices in ``objects`` and columns of ``cls_prob``; attributes are ids in
    ``attrs_id`` and ``attribute_ids``.

    Attributes:
        names: of the classes in order, the background not among them; None where unknown.
        with_background: whether the background was extracted: then it is index 0, and the
            classes begin at 1.
        source: the file of the names, for errors and the record; empty where they are unknown.
        attributes: names of the attributes in order, without "no attribute"; None where unknown.
        attribute_source: the file of the attributes' names; empty where they are unknown.
    """

    names: tuple[str, ...] | None = None
    with_background: bool = False
    source: str = ""
    attributes: tuple[str, ...] | None = None
    attribute_source: str = ""

    def files(self) -> dict[str, str]:
        """The files of the names that are known, as absolute paths, for the manifest."""
        files = {"class_names": self.source, "attribute_names": self.attribute_source}
        return {key: str(Path(file).absolute()) for key, file in files.items() if file}

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

    def require(self, classes: int, attributes: int = 0) -> None:
        """Raise ConfigError where the names are those of other numbers of classes or attributes.

        Args:
            classes: without the background.
            attributes: without "no attribute"; 0 where there are none, or it is unknown.
        """
        _require_number(self.names, self.source, classes, "classes")
        if attributes:
            _require_number(self.attributes, self.attribute_source, attributes, "attributes")

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

    def attributes_of(self, ids: Iterable[int]) -> list[str]:
        """The names of attributes. Raises ConfigError where there is none for one of these."""
        names = self.attributes or ()
        for index in ids:
            if not 0 <= index < len(names):
                number, source = len(names), self.attribute_source
                raise ConfigError(f"{source} has {number} names, none for the attribute {index}")
        return [names[index] for index in ids]


def _require_number(names: tuple[str, ...] | None, source: str, number: int, what: str) -> None:
    if names is not None and len(names) != number:
        raise ConfigError(
            f"{source} has {len(names)} names, but there are {number} {what}: "
            "give the file of their names"
        )


NO_NAMES = ClassNames()  # classes go by their index


def read_class_names(
    source: str | None,
    cache_dir: Path,
    with_background: bool = False,
    attribute_source: str | None = None,
) -> ClassNames:
    """Read the names of the classes, and of the attributes where there is a file of them.

    Args:
        source: path or URL of a file of names, or :data:`NONE`; None for :data:`CLASSES_URL`. A URL
            is fetched once. The file is one of these:

            - JSON ``{"categories": [{"id": 1, "name": "yolk"}, ...]}``, as MMF's, with the
              background as id 0 or without it;
            - a label map of VinVL: JSON ``{"idx_to_label": {"1": "yolk", ...}, "idx_to_attribute":
              {"1": "red", ...}}``, which names the attributes as well;
            - text, a name a line, as Visual Genome's ``objects_vocab.txt``. Of synonyms with commas
              between them, the first counts.
        cache_dir: for what is fetched.
        with_background: whether the background was extracted.
        attribute_source: path or URL of such a file with the names of the attributes; of a label
            map, these are taken.

    Raises:
        ConfigError: a file that can't be read, or isn't one of names. An id 0 that isn't called
            background is such: with it, every class would get its neighbour's name.
        DownloadError: the URL can't be fetched.
    """
    names = ClassNames(None, with_background)
    if source != NONE:
        path = _local(source or CLASSES_URL, cache_dir)
        classes, attributes = _read_names(path)
        names = replace(names, names=classes, source=str(path))
        if attributes is not None:
            names = replace(names, attributes=attributes, attribute_source=str(path))
    if attribute_source is not None:
        path = _local(attribute_source, cache_dir)
        listed, attributes = _read_names(path)
        attributes = listed if attributes is None else attributes
        names = replace(names, attributes=attributes, attribute_source=str(path))
    return names


def _local(source: str, cache_dir: Path) -> Path:
    return fetch(source, cache_dir) if is_url(source) else Path(source)


def _read_names(path: Path) -> tuple[tuple[str, ...], tuple[str, ...] | None]:
    """The names that a file lists, and those of the attributes where it is a label map."""
    try:
        content = path.read_bytes().decode("utf-8-sig")
        if path.suffix != ".json" and not content.lstrip().startswith(("{", "[")):
            lines = content.rstrip().split("\n")
            return tuple(" ".join(line.partition(",")[0].split()) for line in lines), None
        values = json.loads(content)
        if "idx_to_label" in values:
            attributes = values.get("idx_to_attribute")
            of_attributes = None if attributes is None else _in_order(attributes.items(), path)
            return _in_order(values["idx_to_label"].items(), path), of_attributes
        entries = ((entry["id"], entry["name"]) for entry in values["categories"])
        return _in_order(entries, path), None
    except OSError as error:
        raise ConfigError(f"{path}: can't be read: {error.strerror}") from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path}: is no JSON {EXAMPLE}, label map or text") from error


def _in_order(entries: Iterable[tuple[str | int, str]], path: Path) -> tuple[str, ...]:
    """The names by their ids, from (id, name); 0 may be the background."""
    names: dict[int, str] = {}
    for number, name in entries:
        if int(number) in names:
            raise ConfigError(f"{path}: an id occurs twice")
        names[int(number)] = " ".join(name.split())
    first = names.pop(0, BACKGROUND)
    if first.strip("_").lower() != BACKGROUND:
        raise ConfigError(f"{path}: id 0 is {first!r}, but 0 is the background: ids begin at 1")
    return tuple(names[number] for number in sorted(names))


def class_names_or_numbers(
    source: str | None,
    cache_dir: Path,
    with_background: bool = False,
    attribute_source: str | None = None,
) -> ClassNames:
    """As :func:`read_class_names`, for uses that can do without names.

    Where no source is given and the usual one can't be fetched, a warning says so and the classes
    are called by their index.
    """
    if source is None:
        try:
            fetch(CLASSES_URL, cache_dir)
        except DownloadError as error:
            logger.warning("classes go by number: %s, or give a file of their names", error)
            source = NONE
    return read_class_names(source, cache_dir, with_background, attribute_source)
