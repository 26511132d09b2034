"""The class names of a drawing: a drawing can do without."""

from __future__ import annotations

import logging
from pathlib import Path

from ..errors import DownloadError
from ..structures.class_names import ClassNames, read_class_names

logger = logging.getLogger(__name__)


def load_class_names(
    source: str | None, cache_dir: Path, with_background: bool = False
) -> ClassNames:
    """The names that :func:`.read_class_names` gives; for "none" no names.

    Where no source is given and the usual one can't be fetched, a warning says so and the classes
    go by their index.

    Raises:
        ConfigError: a file that can't be read, or isn't one of class names.
        DownloadError: a URL that was given can't be fetched.
    """
    if source != "none":
        try:
            return read_class_names(source, cache_dir, with_background)
        except DownloadError as error:
            if source is not None:
                raise
            logger.warning("classes go by number: %s, or give a file with --classes", error)
    return ClassNames(None, with_background)
