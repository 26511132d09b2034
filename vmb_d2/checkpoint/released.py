"""The released models: what they are by the yaml beside their weights, as MMF takes it."""

from __future__ import annotations

import logging
from pathlib import Path

from ..config import RELEASED_WEIGHTS, VMBModel, canonical_name, named_model, read_vmb_yaml
from ..errors import ConfigError, DownloadError
from ..utils.downloads import cache_folder, cached_path, fetch

logger = logging.getLogger(__name__)


def released_weights(model) -> str:
    """The URL of a model's weights, by its name. Raises ConfigError where none were released."""
    url = RELEASED_WEIGHTS.get(canonical_name(model)) if isinstance(model, str) else None
    if url is None:
        raise ConfigError(
            "model.weights is missing: path or URL of a VMB or of a converted checkpoint "
            f"(only {' and '.join(RELEASED_WEIGHTS)} have released ones)"
        )
    return url


def released_model(
    name: str, cache_dir: str | Path | None = None, download: bool = True
) -> VMBModel | None:
    """The description of a released model, by the yaml beside its weights, fetched once.

    It is the built-in one where that yaml can't be had or used, which a warning says. Others say
    in what the two differ.

    Args:
        name: in :data:`vmb_d2.config.RELEASED_WEIGHTS`, or MMF's.
        cache_dir: None for :func:`vmb_d2.utils.downloads.default_cache_dir`.
        download: False: None where the yaml was not fetched before.
    """
    name, folder = canonical_name(name), cache_folder(cache_dir)
    built_in = named_model(name)
    url = RELEASED_WEIGHTS[name].removesuffix(".pth") + ".yaml"
    if not download and not cached_path(url, folder).is_file():
        return None
    try:
        released = read_vmb_yaml(fetch(url, folder, patiently=False)).model
    except (ConfigError, DownloadError) as error:
        logger.warning("%s: described as built in, without its released yaml: %s", name, error)
        return built_in
    for difference in released.differences(built_in):
        logger.warning("%s: its released yaml has %s as built in", name, difference)
    return released
