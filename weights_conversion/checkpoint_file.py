"""Checkpoint files: read safely, their content checked, written completely or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import os
import pickle
import re
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vmb_d2.config import VMBModel
from vmb_d2.errors import CheckpointError, StoreError, first_line
from vmb_d2.utils import safe_pickle
from vmb_d2.utils.files import whole_file
from vmb_d2.utils.text import listed

from .file_kinds import is_plain_pickle, other_kind

# The entry that a converted checkpoint has beside its state dict, about its origin.
ORIGIN_KEY = "vmb_d2"

# The keys under which checkpoints have their state dict: VMB's; Lightning's and others'.
_WRAPPERS = ("model", "state_dict")

logger = logging.getLogger(__name__)


def read_checkpoint(path: str | Path, unsafe: bool = False) -> dict[str, Any]:
    """Load a checkpoint to the CPU; the tensors of a zip file are memory-mapped.

    Args:
        path: written by ``torch.save``, in its present or its old format; or a pickle of NumPy
            arrays, which become tensors, in dicts. Nothing in such a pickle is run.
        unsafe: also load pickled objects that ``weights_only`` refuses. They can run any code.

    Raises:
        CheckpointError: no such file, truncated, no checkpoint, or refused.
    """
    try:
        if is_plain_pickle(path):
            checkpoint = _read_pickle(Path(path))
        else:
            checkpoint = _read_torch_file(path, unsafe)
    except Exception as error:  # torch.load raises many kinds on damaged files
        raise CheckpointError(f"{path}: {_explain(error, Path(path))}") from error
    if not isinstance(checkpoint, dict):
        raise CheckpointError(f"{path}: holds a {type(checkpoint).__name__}, not a checkpoint")
    return checkpoint


def _read_torch_file(path: str | Path, unsafe: bool) -> Any:
    if unsafe:
        logger.warning("%s: loaded with pickle, which runs any code that is in it", path)
    mmap = zipfile.is_zipfile(path)
    with warnings.catch_warnings():  # a damaged file may show any protocol number
        warnings.filterwarnings("ignore", "Detected pickle protocol", UserWarning)
        return torch.load(path, map_location="cpu", weights_only=not unsafe, mmap=mmap)


def _read_pickle(path: Path) -> Any:
    """A pickle of NumPy arrays, as Detectron2's model zoo has them. Raises StoreError."""
    with open(path, "rb") as file:
        content = safe_pickle.load(file)
    if isinstance(content, dict) and "blobs" in content:
        raise StoreError(
            "no PyTorch checkpoint, but a pickle of Caffe2's blobs: convert it with "
            "tools/c2_to_pt.py of vqa-maskrcnn-benchmark first"
        )
    return _with_tensors(content)


def _with_tensors(value: Any) -> Any:
    """The value with tensors in place of the arrays in its dicts."""
    if isinstance(value, dict):
        return {key: _with_tensors(entry) for key, entry in value.items()}
    if isinstance(value, (np.ndarray, np.generic)):
        return torch.from_numpy(np.array(value))  # a copy: an array can be read-only
    return value


def _explain(error: Exception, path: Path) -> str:
    if isinstance(error, StoreError):
        return str(error)
    with contextlib.suppress(OSError):
        if kind := other_kind(path):
            return f"no PyTorch checkpoint, but {kind}"
    if isinstance(error, OSError):
        return f"can't be read: {error.strerror or error}"
    if not isinstance(error, pickle.UnpicklingError):
        return f"no whole checkpoint ({first_line(error)})"
    if unsupported := re.search(r"GLOBAL (\S+)", str(error)):
        return (
            f"holds {unsupported[1]}, which only pickle can load; if you trust the file, "
            "allow it with `unsafe_load`"
        )
    return "no PyTorch checkpoint, or a damaged one"


def wrapper_of(checkpoint: Mapping[str, Any]) -> str | None:
    """The key under which a checkpoint has its state dict; None where it is a state dict."""
    return next((key for key in _WRAPPERS if isinstance(checkpoint.get(key), Mapping)), None)


def state_dict_of(checkpoint: Mapping[str, Any], path: str | Path) -> dict[str, Tensor]:
    """The state dict in a checkpoint: the checkpoint itself, or under ``model`` or ``state_dict``.

    A prefix of all names, such as ``module.``, is removed. Raises CheckpointError where there is no
    state dict.
    """
    wrapper = wrapper_of(checkpoint)
    state = checkpoint[wrapper] if wrapper else checkpoint
    others = [str(k) for k, v in state.items() if not isinstance(v, Tensor)]
    if others or not state:
        reason = f" (these are no tensors: {listed(others, 5)})" if others else ""
        raise CheckpointError(f"{path}: holds no state dict{reason}")
    shared = os.path.commonprefix([key.split(".")[:-1] for key in state])
    return {".".join(key.split(".")[len(shared) :]): value for key, value in state.items()}


def is_converted(checkpoint: Mapping[str, Any], model: VMBModel) -> bool:
    """Whether a checkpoint of ``model`` is in the layout that the conversion gives.

    Originals that are in Detectron2's layout themselves are not.
    """
    if ORIGIN_KEY in checkpoint:
        return True
    names = checkpoint[wrapper] if (wrapper := wrapper_of(checkpoint)) else checkpoint
    is_detectron2 = any(str(name).startswith("proposal_generator.") for name in names)
    return is_detectron2 and not model.is_detectron2


def check_content(state: Mapping[str, Tensor], path: str | Path) -> None:
    """Raise CheckpointError with the names of tensors that are damaged or not finite.

    Args:
        state: the state dict of ``path``. All of it is read.
        path: the file. If it is a zip file with checksums, they are compared.
    """
    if zipfile.is_zipfile(path) and (damage := _damage(state, path)):
        raise CheckpointError(f"{path}: damaged ({damage}); delete it, and fetch it again")
    if strange := [name for name, tensor in state.items() if not _is_finite(tensor)]:
        what = "no weights to extract with: NaN or infinite values in"
        raise CheckpointError(f"{path}: {what} {listed(strange, 5)}")


def _damage(state: Mapping[str, Tensor], path: str | Path) -> str | None:
    """What is damaged in a zip file; None where nothing is."""
    try:
        with zipfile.ZipFile(path) as archive:
            sums = {member.CRC for member in archive.infolist()}
            if sums == {0}:  # torch.serialization.set_crc32_options(False)
                return None
            damaged = archive.testzip()
    except Exception as error:  # zipfile raises many kinds on damaged files
        return first_line(error)
    if damaged is None:
        return None
    names = [name for name, tensor in state.items() if _checksum(tensor) not in sums]
    return f"wrong checksum of {listed(names, 5) or damaged}"


def _checksum(tensor: Tensor) -> int:
    """Of the storage of a tensor, which is a member of the zip file."""
    content = torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage())
    return zlib.crc32(content.numpy().data)


def _is_finite(tensor: Tensor) -> bool:
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    return all(math.isfinite(value) for value in tensor.detach().aminmax())


def write_checkpoint(checkpoint: Mapping[str, Any], path: str | Path) -> None:
    """Write a checkpoint completely or not at all. Raises CheckpointError where that fails."""
    try:
        with whole_file(path) as temporary:
            torch.save(dict(checkpoint), temporary)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        reason = getattr(error, "strerror", None) or first_line(error)
        raise CheckpointError(f"{path}: can't be written: {reason}") from error


def sha256(path: str | Path) -> str:
    """Hex digest of a file's content."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
