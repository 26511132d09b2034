"""From a checkpoint in either layout, a file or a URL, to a model ready to run."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

from weights_conversion import checkpoint_file

from ..config import VMBModel, to_detectron2
from ..errors import CheckpointError, ConfigError
from ..modeling import VMBRCNN
from ..utils.downloads import cache_folder
from .conversions import conversions_folder, known_conversion, make_conversion
from .sources import local_file


def load_described_model(
    weights: str | Path,
    model: VMBModel | None = None,
    *,
    device: str | torch.device = "cpu",
    cache_dir: str | Path | None = None,
    unsafe: bool = False,
) -> tuple[VMBRCNN, VMBModel]:
    """Load a model for inference.

    On the CPU, the weights of a conversion in the cache are mapped from the file, so that all
    processes share the memory; these files are replaced as a whole and never changed. Weights of
    any other file are copied, since the file can be overwritten.

    Args:
        weights: path or URL of an original or of a converted checkpoint, told apart by content; or
            a folder or a repository of Hugging Face's hub, see :mod:`vmb_d2.checkpoint.sources`.
            An original checkpoint is converted once, into ``cache_dir``.
        model: description of the weights' model. Converted checkpoints contain their own.
        device: where to run.
        cache_dir: for downloads and conversions; None for
            :func:`vmb_d2.utils.downloads.cache_folder`.
        unsafe: load pickled objects too, which can run any code.

    Returns:
        The model in evaluation mode, and its description as ``model`` or the checkpoint gives it.

    Raises:
        DownloadError: the URL can't be downloaded.
        CheckpointError: the file can't be read, or doesn't fit the description.
        ConfigError: there is no description, or the cache can't be written.
    """
    cache = cache_folder(cache_dir)
    path = local_file(weights, cache)
    if model is not None:
        path = known_conversion(path, model, cache) or path
    checkpoint = checkpoint_file.read_checkpoint(path, unsafe)
    state = checkpoint_file.state_dict_of(checkpoint, path)
    description = _description(checkpoint, model, path)
    if not checkpoint_file.is_converted(checkpoint, description):
        path = make_conversion(path, description, cache, unsafe)
        checkpoint = checkpoint_file.read_checkpoint(path)
        state = checkpoint_file.state_dict_of(checkpoint, path)
        description = _description(checkpoint, model, path)
    is_ours = path.parent == conversions_folder(cache)
    if not is_ours:  # ours were checked when they were made
        checkpoint_file.check_content(state, path)
    with _NoInitialValues():
        network = VMBRCNN(to_detectron2(description)).eval()
    try:
        network.load_state_dict(state, assign=is_ours)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:4]]
        raise CheckpointError(f"{path}: doesn't fit the model: {' '.join(lines)}") from error
    return network.to(device), description


def fingerprint(network: VMBRCNN) -> str:
    """Hex SHA-256 of all weights: the same for a checkpoint before and after its conversion."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(f"{name}{tuple(value.shape)}".encode())
        digest.update(np.ascontiguousarray(value.cpu().numpy()).data)
    return digest.hexdigest()


def _description(checkpoint: Mapping[str, Any], model: VMBModel | None, path: Path) -> VMBModel:
    """The model of a checkpoint: what a converted one says, with input and read-out of ``model``.

    The network has to be that of ``model``, if that is given, but for a missing attribute head.
    """
    origin = checkpoint.get(checkpoint_file.ORIGIN_KEY)
    if origin is None:
        if model is None:
            raise ConfigError(
                f"`config_file` is missing: the checkpoint {path} doesn't say what model it is of"
            )
        return model
    own = VMBModel.from_dict(origin["source_config"])
    if model is None:
        return own
    expected = model if own.attributes else model.without_attributes()
    if own.network() != expected.network():
        differences = "; ".join(own.network().differences(expected.network()))
        raise CheckpointError(
            f"{path}: converted as another model ({differences}); "
            "`model_name`=vmb takes the checkpoint's own description"
        )
    return dataclasses.replace(own, input=model.input, read_out=model.read_out)


class _NoInitialValues(TorchFunctionMode):
    """Leaves out the random initial values of parameters, which take longer than loading."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in ("normal_", "uniform_", "kaiming_uniform_"):
            return args[0] if args else kwargs["tensor"]  # torch.nn.init passes it by keyword
        return func(*args, **kwargs)
