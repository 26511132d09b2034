"""Converted checkpoints, kept so that each is made once for all processes that share a cache."""

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
from ..utils.files import write_new
from ..utils.lease import lease_beside
from ..version import __version__

logger = logging.getLogger(__name__)


class Conversions:
    """The conversions in a cache.

    They are told apart by the content of what was converted. That is read once only: a note says
    which conversion is that of a file, known by its path, size and times.

    Args:
        cache_dir: needn't be there.
    """

    def __init__(self, cache_dir: str | Path):
        self.cache_dir = Path(cache_dir)
        self.folder = self.cache_dir / "converted"

    def known(self, source: Path, model: VMBModel) -> Path | None:
        """The conversion of ``source``, where it was made before and the file is as it was then."""
        with contextlib.suppress(OSError, ValueError):
            target = self.folder / self._note(source, model).read_text(encoding="utf-8")
            return target if target.is_file() else None
        return None

    def make(self, source: Path, model: VMBModel, unsafe: bool = False) -> Path:
        """The conversion of ``source``, made now if it isn't there.

        Args:
            source: a VMB checkpoint.
            model: what it is of.
            unsafe: load pickled objects too, which can run any code.

        Raises:
            CheckpointError: see :func:`weights_conversion.convert.convert_checkpoint`.
            ConfigError: the cache can't be written.
        """
        try:
            note = self._note(source, model)
            digest = _digest(checkpoint_file.sha256(source), model.to_dict(), __version__)
            target = self.folder / f"{source.stem}.{digest}.pth"
            if not target.exists():
                self.folder.mkdir(parents=True, exist_ok=True)
                with lease_beside(target).acquire(wait=True):
                    if not target.exists():
                        logger.info("converting %s to %s", source, target)
                        convert_checkpoint(source, target, model, unsafe)
        except OSError as error:
            raise ConfigError(f"cache_dir={self.cache_dir}: {error.strerror or error}") from error
        with contextlib.suppress(OSError):  # it is there, or the cache is not ours
            write_new(note, target.name.encode())
        return target

    def _note(self, source: Path, model: VMBModel) -> Path:
        status = os.stat(source)
        times = [status.st_mtime_ns, status.st_ctime_ns]
        identity = [str(source.resolve()), status.st_size, *times]
        return self.folder / f".{source.stem}.{_digest(identity, model.to_dict(), __version__)}"


def _digest(*key: Any) -> str:
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
