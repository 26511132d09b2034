"""Arithmetic of the network: which there is, where, and how PyTorch is told."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..errors import ConfigError

if TYPE_CHECKING:  # checking a name takes no torch
    import torch

# What the network's weights and maps are stored in, as torch calls it.
_STORED = {"fp32": "float32", "tf32": "float32", "bf16": "bfloat16", "fp16": "float16"}
PRECISIONS = tuple(_STORED)
_AMPERE = (8, 0)  # compute capability of the first GPUs with TF32 and bfloat16


def check_name(precision: str) -> None:
    """Raise ConfigError for what is no precision anywhere."""
    if precision not in PRECISIONS:
        raise ConfigError(f"precision={precision}: valid are {', '.join(PRECISIONS)}")


def check_precision(precision: str, device: torch.device) -> None:
    """Raise ConfigError for what is no precision, or none that ``device`` has."""
    check_name(precision)
    valid = precisions_of(device)
    if precision not in valid:
        raise ConfigError(
            f"precision={precision}: {device} doesn't have it; valid there are {', '.join(valid)}"
        )


def precisions_of(device: torch.device) -> tuple[str, ...]:
    """The precisions that a device computes in.

    No GPU before Ampere has TF32 and bfloat16. PyTorch's float16 convolutions on a CPU take a
    hundred times as long as float32 ones, or more.
    """
    if device.type == "cpu":
        return "fp32", "bf16"
    import torch

    if torch.cuda.get_device_capability(device) < _AMPERE:
        return "fp32", "fp16"
    return PRECISIONS


def dtype_of(precision: str) -> torch.dtype:
    """What the network's weights and maps are stored in."""
    import torch

    return getattr(torch, _STORED[precision])


@contextlib.contextmanager
def arithmetic(precision: str = "fp32") -> Iterator[None]:
    """TF32 on GPUs that have it for ``tf32``, else none: PyTorch's convolutions use it unless told
    otherwise."""
    import torch

    convolutions, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = convolutions.allow_tf32, products.allow_tf32
    convolutions.allow_tf32 = products.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        convolutions.allow_tf32, products.allow_tf32 = before
