"""Converted checkpoints in the cache: each is made once for all processes that share the cache.

A conversion is named by the SHA-256 of the checkpoint's content. Since that takes seconds to
compute, a small file beside the conversions (the note) remembers which one belongs to a checkpoint,
found by its path, size and times.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from pathlib import Path
from typing import Any

from weights_conversion import checkpoint_file
from weights_conversion.convert import convert_checkpoint

from ..config import VMBModel
from ..errors import ConfigError
from ..utils.files import write_whole
from ..utils.lease import lease_beside
from ..version import __version__

logger = logging.getLogger(__name__)


def conversions_folder(cache_dir: Path) -> Path:
    """The folder of all conversions in a cache."""
    return cache_dir / "converted"


def known_conversion(source: Path, model: VMBModel, cache_dir: Path) -> Path | None:
    """The conversion of ``source``; None where it is still to be made, or the file has changed."""
    with contextlib.suppress(OSError, ValueError):
        name = _note(source, model, cache_dir).read_text(encoding="utf-8")
        target = conversions_folder(cache_dir) / name
        return target if target.is_file() else None
    return None


def make_conversion(source: Path, model: VMBModel, cache_dir: Path, unsafe: bool = False) -> Path:
    """The conversion of ``source``, made now if it doesn't exist.

    Args:
        source: a VMB checkpoint.
        model: its description.
        cache_dir: it is made where it doesn't exist.
        unsafe: load pickled objects too, which can run any code.

    Raises:
        CheckpointError: see :func:`weights_conversion.convert.convert_checkpoint`.
        ConfigError: the cache can't be written.
    """
    try:
        note = _note(source, model, cache_dir)
        digest = _digest(checkpoint_file.sha256(source), model.network().to_dict(), __version__)
        target = conversions_folder(cache_dir) / f"{source.stem}.{digest}.pth"
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            with lease_beside(target).acquire(wait=True):
                if not target.exists():
                    logger.info("converting %s to %s", source, target)
                    convert_checkpoint(source, target, model, unsafe)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(reason, field="cache_dir", value=cache_dir) from error
    with contextlib.suppress(OSError):  # another process writes it too, or the cache is read-only
        write_whole(note, target.name.encode())
    return target


def _note(source: Path, model: VMBModel, cache_dir: Path) -> Path:
    status = os.stat(source)
    identity = [str(source.resolve()), status.st_size, status.st_mtime_ns, status.st_ctime_ns]
    digest = _digest(identity, model.network().to_dict(), __version__)
    return conversions_folder(cache_dir) / f".{source.stem}.{digest}"


def _digest(*key: Any) -> str:
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
