"""Checkpoint files: read safely, told apart by content, written whole or not at all."""

from __future__ import annotations

import hashlib
import logging
import pickle
import struct
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vmb_d2.errors import CheckpointError
from vmb_d2.files import whole_file

# The entry that marks a checkpoint as converted by us, and describes where it comes from.
ORIGIN_KEY = "vmb_d2"

# What torch.load was seen to raise on damaged files, beside UnpicklingError and OSError.
_DAMAGE = (
    RuntimeError,
    EOFError,
    ValueError,
    TypeError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    ArithmeticError,
    MemoryError,
    struct.error,
    zipfile.BadZipFile,
)

logger = logging.getLogger(__name__)


def read_checkpoint(path: str | Path, unsafe: bool = False) -> dict[str, Any]:
    """Load a checkpoint to the CPU; the tensors of a zip file are memory-mapped.

    Args:
        path: written by ``torch.save``, in its present or its old format.
        unsafe: also load pickled objects that ``weights_only`` refuses. They can run any code.

    Raises:
        CheckpointError: no such file, truncated, no checkpoint, or refused.
    """
    try:
        if Path(path).stat().st_size == 0:
            raise CheckpointError(f"{path}: is empty")
        mmap = zipfile.is_zipfile(path)
        if unsafe:
            logger.warning("%s: loaded with pickle, which runs any code that is in it", path)
        with warnings.catch_warnings():  # a damaged file may show any protocol number
            warnings.filterwarnings("ignore", "Detected pickle protocol", UserWarning)
            checkpoint = torch.load(path, map_location="cpu", weights_only=not unsafe, mmap=mmap)
    except OSError as error:
        raise CheckpointError(f"{path}: can't be read: {error.strerror or error}") from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path}: {_explain(error)}") from error
    except _DAMAGE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path}: no whole checkpoint ({reason})") from error
    if not isinstance(checkpoint, dict):
        raise CheckpointError(f"{path}: holds a {type(checkpoint).__name__}, not a checkpoint")
    return checkpoint


def _explain(error: pickle.UnpicklingError) -> str:
    text = str(error)
    if "Unsupported global" in text or "GLOBAL" in text:
        name = text.split("GLOBAL ", 1)[-1].split()[0] if "GLOBAL " in text else "objects"
        return (
            f"holds {name}, which only pickle can load; if you trust the file, "
            "allow it with --unsafe-load (in tools/extract.py: model.unsafe_load=true)"
        )
    return "no PyTorch checkpoint, or a damaged one"


def state_dict_of(checkpoint: Mapping[str, Any], path: str | Path) -> dict[str, Tensor]:
    """The state dict in a checkpoint: under ``model`` or bare, without ``module.`` prefixes.

    Raises CheckpointError where there is none. Sparse and quantized tensors are none, either.
    """
    state = checkpoint.get("model", checkpoint)
    if not isinstance(state, Mapping) or not state:
        raise CheckpointError(f"{path}: holds no state dict")
    strangers = [str(k) for k, v in state.items() if not _is_dense(v)]
    if strangers:
        raise CheckpointError(
            f"{path}: holds no state dict (these are no tensors: {', '.join(strangers[:5])})"
        )
    if all(key.startswith("module.") for key in state):
        return {key.removeprefix("module."): value for key, value in state.items()}
    return dict(state)


def _is_dense(value: Any) -> bool:
    """Whether it is a tensor whose numbers are in memory, each as it is."""
    return (
        isinstance(value, Tensor)
        and value.layout is torch.strided
        and not (value.is_quantized or value.is_meta)
    )


def layout_of(checkpoint: Mapping[str, Any], path: str | Path) -> str:
    """``"detectron2"`` or ``"vmb"``, by the names of the parameters. Raises CheckpointError."""
    state = state_dict_of(checkpoint, path)
    if any(key.startswith("proposal_generator.") for key in state):
        return "detectron2"
    return "vmb"


def write_checkpoint(checkpoint: Mapping[str, Any], path: str | Path) -> None:
    """Write beside ``path`` and move there, so that ``path`` is never half a file.

    Raises CheckpointError where that fails; nothing is left behind.
    """
    try:
        with whole_file(path) as temporary:
            torch.save(dict(checkpoint), temporary)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise CheckpointError(f"{path}: can't be written: {reason}") from error


def sha256(path: str | Path) -> str:
    """Hex digest of a file's content."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
