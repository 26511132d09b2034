"""Checkpoint files: read safely, their content checked, written completely or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import os
import pickle
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vmb_d2.errors import CheckpointError
from vmb_d2.utils.files import whole_file

from .file_kinds import other_kind

# The entry that a converted checkpoint has beside its state dict, about its origin.
ORIGIN_KEY = "vmb_d2"

# The keys under which checkpoints have their state dict: VMB's; Lightning's and others'.
_WRAPPERS = ("model", "state_dict")

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
        mmap = zipfile.is_zipfile(path)
        if unsafe:
            logger.warning("%s: loaded with pickle, which runs any code that is in it", path)
        with warnings.catch_warnings():  # a damaged file may show any protocol number
            warnings.filterwarnings("ignore", "Detected pickle protocol", UserWarning)
            checkpoint = torch.load(path, map_location="cpu", weights_only=not unsafe, mmap=mmap)
    except Exception as error:  # torch.load raises many kinds on damaged files
        raise CheckpointError(f"{path}: {_explain(error, Path(path))}") from error
    if not isinstance(checkpoint, dict):
        raise CheckpointError(f"{path}: holds a {type(checkpoint).__name__}, not a checkpoint")
    return checkpoint


def _explain(error: Exception, path: Path) -> str:
    with contextlib.suppress(OSError):
        if kind := other_kind(path):
            return f"no PyTorch checkpoint, but {kind}"
    if isinstance(error, OSError):
        return f"can't be read: {error.strerror or error}"
    text = str(error)
    if not isinstance(error, pickle.UnpicklingError):
        reason = text.splitlines()[0] if text else type(error).__name__
        return f"no whole checkpoint ({reason})"
    if "Unsupported global" in text or "GLOBAL" in text:
        name = text.split("GLOBAL ", 1)[-1].split()[0] if "GLOBAL " in text else "objects"
        return (
            f"holds {name}, which only pickle can load; if you trust the file, "
            "allow it with `unsafe_load`"
        )
    return "no PyTorch checkpoint, or a damaged one"


def wrapper_of(checkpoint: Mapping[str, Any]) -> str | None:
    """The key under which a checkpoint has its state dict; None where it is a state dict."""
    return next((key for key in _WRAPPERS if isinstance(checkpoint.get(key), Mapping)), None)


def state_dict_of(checkpoint: Mapping[str, Any], path: str | Path) -> dict[str, Tensor]:
    """The state dict in a checkpoint: the checkpoint itself, or under ``model`` or ``state_dict``.

    A prefix of all names, such as ``module.``, is removed. Raises CheckpointError where there is no
    state dict, or it has sparse, quantized or meta tensors.
    """
    wrapper = wrapper_of(checkpoint)
    state = checkpoint[wrapper] if wrapper else checkpoint
    if not state:
        raise CheckpointError(f"{path}: holds no state dict")
    strangers = [str(k) for k, v in state.items() if not (isinstance(k, str) and _is_dense(v))]
    if strangers:
        raise CheckpointError(
            f"{path}: holds no state dict (these are no tensors: {', '.join(strangers[:5])})"
        )
    shared = os.path.commonprefix([key.split(".")[:-1] for key in state])
    return {".".join(key.split(".")[len(shared) :]): value for key, value in state.items()}


def check_content(state: Mapping[str, Tensor], path: str | Path) -> None:
    """Raise CheckpointError with the names of tensors that are damaged or not finite.

    Args:
        state: the state dict of ``path``. All of it is read.
        path: the file. If it is a zip file with checksums, they are compared.
    """
    if damaged := _damaged(state, path):
        what = "damaged, download or copy it again: wrong checksum of"
        raise CheckpointError(f"{path}: {what} {_some(damaged)}")
    if strange := [name for name, tensor in state.items() if not _is_finite(tensor)]:
        what = "no weights to extract with: NaN or infinite values in"
        raise CheckpointError(f"{path}: {what} {_some(strange)}")


def _damaged(state: Mapping[str, Tensor], path: str | Path) -> list[str]:
    """The names of tensors whose bytes have another checksum than the file says."""
    if not zipfile.is_zipfile(path):
        return []
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            sums = {member.CRC for member in members}
            if sums == {0}:  # torch.serialization.set_crc32_options(False)
                return []
            right: dict[int, bool] = {}  # by the storage's address: tensors can share storage
            for tensor in state.values():
                storage = tensor.untyped_storage()
                if storage.data_ptr() not in right:
                    content = torch.empty(0, dtype=torch.uint8).set_(storage).numpy()
                    right[storage.data_ptr()] = zlib.crc32(content.data) in sums
            names = [k for k, v in state.items() if not right[v.untyped_storage().data_ptr()]]
            (pickled,) = (m for m in members if m.filename.rpartition("/")[2] == "data.pkl")
            archive.read(pickled)
            return names
    except Exception as error:
        raise CheckpointError(f"{path}: damaged, download or copy it again: {error}") from error


def _is_finite(tensor: Tensor) -> bool:
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    return all(math.isfinite(value) for value in tensor.detach().aminmax())


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _is_dense(value: Any) -> bool:
    """Whether ``value`` is a dense tensor that is not quantized."""
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
    """Write a checkpoint completely or not at all. Raises CheckpointError where that fails."""
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
