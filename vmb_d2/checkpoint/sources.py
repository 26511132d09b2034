"""Where weights come from: a file, a folder, a repository of Hugging Face's hub, or a URL.

A folder is a download of such a repository, as ``unc-nlp/frcnn-vg-finetuned``: it has the weights
and the yaml that describes them.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path

from ..config import VMBModel, read_vmb_model
from ..errors import CheckpointError, DownloadError
from ..utils.downloads import cache_folder, fetch, fetch_from_hub, is_url, there_from_hub

_WEIGHTS, _YAML = "pytorch_model.bin", "config.yaml"
_REPOSITORY = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_CHECKPOINTS = (".pth", ".pt", ".bin", ".pkl", ".ckpt")  # no repository, but a file that is missing

logger = logging.getLogger(__name__)


def is_repository(weights: str | Path) -> bool:
    """Whether ``weights`` is OWNER/NAME of Hugging Face's hub, and no local path."""
    name = str(weights)
    if not _REPOSITORY.fullmatch(name) or name.endswith(_CHECKPOINTS):
        return False
    return not Path(name).exists()


def local_file(weights: str | Path, cache_dir: str | Path | None = None) -> Path:
    """The local file of weights, downloaded if need be; a file needs not exist.

    Raises:
        DownloadError: it can't be downloaded.
        CheckpointError: a folder without weights.
    """
    if is_url(weights):
        return fetch(str(weights), cache_folder(cache_dir))
    if is_repository(weights):
        return fetch_from_hub(str(weights), _WEIGHTS, cache_folder(cache_dir))
    path = Path(weights).expanduser()
    if not path.is_dir():
        return path
    if not (path / _WEIGHTS).is_file():
        raise CheckpointError(f"{path}: a folder without {_WEIGHTS}")
    return path / _WEIGHTS


def model_beside(
    weights: str | Path, cache_dir: str | Path | None = None, download: bool = True
) -> VMBModel | None:
    """The description in the yaml of a folder or repository of weights; None where there is none.

    Where a repository's yaml can't be downloaded, there is a warning.

    Args:
        weights: whatever :func:`local_file` takes.
        cache_dir: None for :func:`vmb_d2.utils.downloads.cache_folder`.
        download: False: take a repository's yaml only if it was downloaded before.

    Raises:
        ConfigError: see :func:`vmb_d2.config.read_vmb_model`.
    """
    if is_url(weights):
        return None
    path: Path | None = Path(weights).expanduser() / _YAML
    if is_repository(weights):
        look_up = fetch_from_hub if download else there_from_hub
        try:
            path = look_up(str(weights), _YAML, cache_folder(cache_dir))
        except DownloadError as error:
            logger.warning("%s: not described by its %s: %s", weights, _YAML, error)
            return None
    return read_vmb_model(path) if path is not None and path.is_file() else None
