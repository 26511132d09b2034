"""The released models, described by the yaml beside their weights, as in MMF."""

from __future__ import annotations

import logging
from pathlib import Path

from ..config import (
    RELEASED_WEIGHTS,
    RELEASED_YAML,
    VMBModel,
    canonical_name,
    named_model,
    read_vmb_model,
)
from ..errors import ConfigError, DownloadError
from ..utils.downloads import cache_folder, cached_path, fetch
from .sources import model_beside

logger = logging.getLogger(__name__)


def released_name(model: object) -> str:
    """The name in RELEASED_WEIGHTS of a model whose weights are not given.

    Raises ConfigError where ``model`` is not the name of a released one.
    """
    name = canonical_name(model) if isinstance(model, str) else ""
    if name not in RELEASED_WEIGHTS:
        raise ConfigError(
            "`weights` is missing: path or URL of an original or of a converted checkpoint "
            f"(only {', '.join(RELEASED_WEIGHTS)} have released ones)"
        )
    return name


def released_model(
    name: str, cache_dir: str | Path | None = None, download: bool = True
) -> VMBModel | None:
    """The description of a released model, from the yaml beside its weights, downloaded once.

    Where that yaml can't be downloaded or used, a warning says so and the built-in description is
    returned. Where the two differ, there is a warning for each difference.

    Args:
        name: one of RELEASED_WEIGHTS, or MMF's name of it.
        cache_dir: None for :func:`vmb_d2.utils.downloads.cache_folder`.
        download: False: return None where the yaml was not downloaded before.
    """
    name, folder = canonical_name(name), cache_folder(cache_dir)
    built_in = named_model(name)
    url = RELEASED_YAML.get(name)
    if url and not download and not cached_path(url, folder).is_file():
        return None
    try:
        if url:
            released = read_vmb_model(fetch(url, folder))
        elif (beside := model_beside(RELEASED_WEIGHTS[name], folder, download)) is not None:
            released = beside
        else:
            return built_in if download else None
    except (ConfigError, DownloadError) as error:
        logger.warning("%s: described as built in, without its released yaml: %s", name, error)
        return built_in
    for difference in released.differences(built_in):
        logger.warning("%s: its released yaml has %s as built in", name, difference)
    return released
