"""From a checkpoint, wherever and in whichever layout it is, to a model ready to run."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from weights_conversion import checkpoint_file

from ..config import VMBModel, to_detectron2
from ..errors import CheckpointError, ConfigError
from ..modeling import VMBRCNN
from ..utils.downloads import cache_folder, fetch, is_url
from .conversions import Conversions


def load_model(weights: str | Path, model: VMBModel | None = None, **options) -> VMBRCNN:
    """The model alone of what :func:`load_described_model` gives."""
    return load_described_model(weights, model, **options)[0]


def load_described_model(
    weights: str | Path,
    model: VMBModel | None = None,
    *,
    device: str | torch.device = "cpu",
    cache_dir: str | Path | None = None,
    unsafe: bool = False,
) -> tuple[VMBRCNN, VMBModel]:
    """Load a model for inference.

    On the CPU, the weights of a checkpoint in the cache stay in the file, mapped into memory that
    all processes share: such a file is only ever replaced as a whole, which leaves the map as it
    is. Those of any other file are copied, since it can be written over.

    Args:
        weights: path or URL of a VMB or of a converted checkpoint, told apart by content. A VMB
            one is converted once, into ``cache_dir``.
        model: what the weights are of. A checkpoint that this package converted knows it itself.
        device: where to run.
        cache_dir: for downloads and conversions; None for
            :func:`vmb_d2.utils.downloads.default_cache_dir`.
        unsafe: load pickled objects too, which can run any code.

    Returns:
        The model, and its description as ``model`` or the checkpoint gives it.

    Raises:
        DownloadError, CheckpointError, ConfigError: see their texts.
    """
    cache_dir = cache_folder(cache_dir)
    path = fetch(str(weights), cache_dir) if is_url(weights) else Path(weights).expanduser()
    try:
        conversions = Conversions(cache_dir)
        if model is not None:
            path = conversions.known(path, model) or path
        checkpoint = checkpoint_file.read_checkpoint(path, unsafe)
        if checkpoint_file.layout_of(checkpoint, path) == "vmb":
            if model is None:
                raise ConfigError(
                    f"model.config_file is missing: {path} is a VMB checkpoint, "
                    "which doesn't say what model it is of"
                )
            path = conversions.make(path, model, unsafe)
            checkpoint = checkpoint_file.read_checkpoint(path)
        state = checkpoint_file.state_dict_of(checkpoint, path)
        if conversions.folder not in path.parents:  # there, the conversion has looked
            checkpoint_file.check_content(state, path)
    except CheckpointError as error:
        if is_url(weights):
            raise CheckpointError(f"{error}; delete the file to download it again") from error
        raise
    model = _model_of(checkpoint, model, path)
    device = torch.device(device)
    copies = device.type == "cpu" and cache_dir not in path.parents
    network = _build(model)
    _load_state(network, state, path, copies)
    return network.to(device), model


def fingerprint(network: VMBRCNN) -> str:
    """Hex SHA-256 of all weights: the same for a checkpoint before and after its conversion."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(f"{name}{tuple(value.shape)}".encode())
        digest.update(np.ascontiguousarray(value.cpu().numpy()))
    return digest.hexdigest()


def _model_of(checkpoint, model: VMBModel | None, path: Path) -> VMBModel:
    """The model that a converted checkpoint says it is of, which has to be ``model``, if given."""
    origin = checkpoint.get(checkpoint_file.ORIGIN_KEY)
    if origin is None:
        if model is None:
            raise ConfigError(f"model.config_file is missing: {path} doesn't say what it is of")
        return model
    own = VMBModel.from_dict(origin["source_config"])
    if model is not None and own != model:
        raise CheckpointError(
            f"{path}: converted as another model ({'; '.join(own.differences(model))}); "
            "model=vmb takes the checkpoint's own description"
        )
    return own


@contextlib.contextmanager
def _without_values() -> Iterator[None]:
    """Within the block, parameters that this thread makes have neither memory nor values.

    So no random ones are drawn, which takes longer than loading. Buffers are as ever: some are in
    no checkpoint.
    """
    thread = threading.get_ident()

    def strip(module: nn.Module, name: str, parameter: nn.Parameter) -> nn.Parameter | None:
        if threading.get_ident() != thread:
            return None
        return nn.Parameter(parameter.to("meta"), parameter.requires_grad)

    hook = register_module_parameter_registration_hook(strip)
    try:
        yield
    finally:
        hook.remove()


def _build(model: VMBModel) -> VMBRCNN:
    """The network in evaluation mode, on the CPU; its parameters are still to be loaded."""
    with _without_values():
        return VMBRCNN(to_detectron2(model)).eval()


def _load_state(network: VMBRCNN, state: Mapping[str, Tensor], path: Path, copies: bool) -> None:
    """Give the network a state dict's tensors, as they are where they fit, or copies of them."""
    own = network.state_dict()

    def fitted(name: str, value: Tensor) -> Tensor:
        like = own.get(name, value)
        value = value.detach().to(like.dtype)
        if not copies and value.stride() == like.stride():
            return value
        return value.clone(memory_format=torch.contiguous_format)

    state = {name: fitted(name, value) for name, value in state.items()}
    try:
        network.load_state_dict(state, assign=True)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:4]]
        raise CheckpointError(f"{path}: doesn't fit the model: {' '.join(lines)}") from error
