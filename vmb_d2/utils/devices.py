"""The device that the network runs on, and how it computes there: precision, memory.

PyTorch is imported where it is used: checking the name of a precision doesn't need it.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import platform
import re
import subprocess
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..errors import ConfigError, first_line

if TYPE_CHECKING:
    import torch

# The dtype of the network's weights and maps, as torch names it.
_DTYPES = {"fp32": "float32", "tf32": "float32", "bf16": "bfloat16", "fp16": "float16"}
PRECISIONS = tuple(_DTYPES)
_AMPERE = (8, 0)  # compute capability of the first GPUs with TF32 and bfloat16
_NO_KERNELS = "no kernel image"  # in the error of a PyTorch that isn't built for a GPU

# What x152 allocates in float32 for one image of 800 x 1344, without the weights, is 0.9 GB.
_BYTES_PER_IMAGE = 10**9
_SPARE_BYTES = 10**9  # for workspaces of cuDNN and cuBLAS, and fragmentation
# The smallest maps of the network, of 25 x 42 positions and 2048 channels, are 144 tiles of
# 128 x 128 for each image: one image occupies the 132 multiprocessors of an H100, and with 16
# images at most 1/16 of the time is lost in a last round that isn't full.
_MOST_IMAGES = 16

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # M_TRIM_THRESHOLD and M_MMAP_MAX of malloc.h

logger = logging.getLogger(__name__)


def device_of(name: str | torch.device) -> torch.device:
    """The device for ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    ``auto`` is a GPU where PyTorch can use one. Where there is an NVIDIA GPU that it can't use,
    ``auto`` is the CPU, with a warning that says why.

    Raises:
        ConfigError: no such device, or a GPU that PyTorch can't use.
    """
    import torch

    name = str(name)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    wanted = ("cuda" if gpus else "cpu") if name == "auto" else name
    valid = ["cpu", *(["cuda"] if gpus else []), *(f"cuda:{i}" for i in range(gpus))]
    problem = None
    if wanted in valid and wanted != "cpu":
        problem = _why_unfit(wanted)
    elif not gpus and (name == "auto" or name.startswith("cuda")):
        problem = _why_none([str(warning.message) for warning in caught])
    if problem and name != "auto":
        raise ConfigError(problem, field="device", value=name)
    if problem:
        logger.warning("the device is the CPU, since %s", problem)
        wanted = "cpu"
    if wanted not in valid:
        raise ConfigError(f"valid here are auto, {', '.join(valid)}", field="device", value=name)
    return torch.device(wanted)


def _why_unfit(device: str) -> str | None:
    """Why PyTorch has no operators for the GPU ``device``; None where it has."""
    import torch

    try:
        torch.zeros(1, device=device).add_(1).item()
    except RuntimeError as error:
        if _NO_KERNELS in str(error):
            return _unusable(torch.cuda.get_device_name(device), first_line(error))
    return None


def _why_none(messages: list[str]) -> str | None:
    """Why PyTorch finds none of this machine's NVIDIA GPUs; None where there is none to find.

    Args:
        messages: PyTorch's warnings when it looked for one.
    """
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and not re.match(r"\s*(\d|GPU-|MIG-)", visible):
        return None  # hidden on purpose
    gpu = _nvidia_smi()
    if gpu is None:
        return None
    if torch.version.cuda is None:
        return _unusable(gpu, "it is built without CUDA")
    reasons = [text.partition("CUDA initialization: ")[2].split(". ")[0] for text in messages]
    if visible is not None:
        reasons.append(f"CUDA_VISIBLE_DEVICES={visible}")
    return _unusable(gpu, "; ".join(filter(None, reasons)) or "it finds no GPU")


def _unusable(gpu: str, reason: str) -> str:
    import torch

    return (
        f"PyTorch {torch.__version__} can't use {gpu} ({reason}); "
        'another PyTorch: make install TORCH="torch==X torchvision==Y", see README.md'
    )


def _nvidia_smi() -> str | None:
    """The first GPU and the driver's version; None where there is none."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    name, _, driver = done.stdout.partition("\n")[0].partition(", ")
    return f"{name}, driver {driver}" if driver else None


def device_name(device: torch.device) -> str:
    """The model of the GPU or of the processor."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return platform.processor() or platform.machine()


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an operator failed for lack of memory, on a GPU or on the CPU."""
    import torch

    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def free_memory(device: torch.device) -> int:
    """Bytes of a GPU that PyTorch can still allocate, those that it has reserved included."""
    import torch

    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def estimated_batch_size(device: torch.device, precision: str, images: int) -> int:
    """How many images of the largest size fit into a GPU's free memory at a time, about.

    On the CPU it is 1: one image occupies all cores.

    Args:
        images: how many there are; the result is no larger.
    """
    if device.type != "cuda":
        return 1
    each = _BYTES_PER_IMAGE * dtype_of(precision).itemsize // 4
    return max(1, min((free_memory(device) - _SPARE_BYTES) // each, _MOST_IMAGES, images))


def keep_freed_memory() -> None:
    """Have this process keep the memory that it frees, to be used again, where it runs on glibc.

    glibc returns large blocks to the system at once. A network on the CPU then gets each of its
    maps as new pages, which the system has to clear first: some 6 GB per image with x152.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, or a static one
        return
    mallopt(_TRIM_THRESHOLD, -1)
    mallopt(_MMAP_MAX, 0)


def check_precision(precision: str, device: torch.device | None = None) -> None:
    """Raise ConfigError for an unknown precision, or one that ``device``, if given, lacks."""
    if precision not in PRECISIONS:
        raise ConfigError(field="precision", value=precision, valid=PRECISIONS)
    if device is not None and precision not in (valid := precisions_of(device)):
        raise ConfigError(
            f"{device} doesn't have it; valid there are {', '.join(valid)}",
            field="precision",
            value=precision,
        )


def precisions_of(device: torch.device) -> tuple[str, ...]:
    """The precisions that a device computes in.

    GPUs before Ampere have neither TF32 nor bfloat16. PyTorch's float16 convolutions on a CPU take
    at least a hundred times as long as float32 ones.
    """
    import torch

    if device.type == "cpu":
        return "fp32", "bf16"
    if torch.cuda.get_device_capability(device) < _AMPERE:
        return "fp32", "fp16"
    return PRECISIONS


def dtype_of(precision: str) -> torch.dtype:
    """The dtype of the network's weights and maps."""
    import torch

    return getattr(torch, _DTYPES[precision])


@contextlib.contextmanager
def arithmetic(precision: str = "fp32") -> Iterator[None]:
    """Within the block, PyTorch uses TF32 on GPUs for ``tf32``, and for no other precision.

    By default, PyTorch's convolutions use it.
    """
    import torch

    convolutions, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = convolutions.allow_tf32, products.allow_tf32
    convolutions.allow_tf32 = products.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        convolutions.allow_tf32, products.allow_tf32 = before
