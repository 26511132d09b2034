"""The device that the network runs on, and how it computes there: precision, memory.

PyTorch is imported where it is used: checking the name of a precision doesn't need it.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import logging
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from ..errors import ConfigError, first_line

if TYPE_CHECKING:
    import torch

# The dtype of the network's weights and maps, as torch names it.
_DTYPES = {"fp32": "float32", "tf32": "float32", "bf16": "bfloat16", "fp16": "float16"}
PRECISIONS = tuple(_DTYPES)
COMPILE_MODES = ("off", "graphs", "inductor")
# cuDNN's choice by its heuristics, among the algorithms that give the same in each run. One by
# measurement (benchmark) can be another in each run, and so can the last bits of features.
CUDNN = {"benchmark": False, "deterministic": True}
_HINT = 'another PyTorch: make install TORCH="torch==X torchvision==Y", see README.md'
_AMPERE = (8, 0)  # compute capability of the first GPUs with TF32 and bfloat16

# What x152 allocates in float32 for one image of 800 x 1344, without the weights, is 0.9 GB.
_BYTES_PER_IMAGE = 10**9
_SPARE_BYTES = 10**9  # for workspaces of cuDNN and cuBLAS, and fragmentation
# The smallest maps of the network, of 25 x 42 positions and 2048 channels, are 144 tiles of
# 128 x 128 for each image: one image occupies the 132 multiprocessors of an H100, and with 16
# images at most 1/16 of the time is lost in a last round that isn't full.
_MOST_IMAGES = 16

# Of glibc's malloc.h: M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX. The values in use after
# large blocks were freed, as mallopt(3) describes them, and those that keep all memory.
_MALLOC_DEFAULT = {-1: 64 * 2**20, -3: 32 * 2**20, -4: 65536}
_MALLOC_KEEP = {-1: -1, -4: 0}

logger = logging.getLogger(__name__)


def device_of(name: str | torch.device) -> torch.device:
    """The device for ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    ``auto`` is a GPU where PyTorch can use one. Where it can't, although this machine may have an
    NVIDIA GPU, a warning says so; PyTorch itself warns of a driver that is too old.

    Raises:
        ConfigError: no such device, or a GPU that this PyTorch has no operators for.
    """
    import torch

    name = str(name)
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    valid = ["cpu", *(["cuda"] if gpus else []), *(f"cuda:{i}" for i in range(gpus))]
    wanted = ("cuda" if gpus else "cpu") if name == "auto" else name
    if wanted not in valid:
        raise ConfigError(f"valid here are auto, {', '.join(valid)}", field="device", value=name)
    if wanted != "cpu":
        try:
            torch.zeros(1, device=wanted).add_(1).item()
        except RuntimeError as error:
            if "no kernel image" in str(error):
                gpu = torch.cuda.get_device_name(wanted)
                reason = (
                    f"PyTorch {torch.__version__} can't use {gpu} ({first_line(error)}); {_HINT}"
                )
                if name != "auto":
                    raise ConfigError(reason, field="device", value=name) from error
                logger.warning("the device is the CPU: %s", reason)
                return torch.device("cpu")
    is_hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1")
    if name == "auto" and not gpus and not is_hidden and shutil.which("nvidia-smi"):
        build = "" if torch.version.cuda else " (it is built without CUDA)"
        words = "the device is the CPU: PyTorch %s finds no GPU that it can use%s; %s"
        logger.warning(words, torch.__version__, build, _HINT)
    return torch.device(wanted)


def device_name(device: torch.device) -> str:
    """The model of the GPU or of the processor."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return platform.processor() or platform.machine()


def clock(device: torch.device) -> Callable[[], float]:
    """A function that waits until the device is idle and returns the time in seconds."""
    import torch

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    return now


def on_device(
    numbers: Sequence[int] | Sequence[Sequence[float]],
    device: torch.device,
    dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """``torch.tensor``, but the host doesn't wait until a GPU has the numbers."""
    import torch

    tensor = torch.tensor(numbers, dtype=dtype, pin_memory=device.type == "cuda")
    return tensor.to(device, non_blocking=True)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an operator failed for lack of memory, on a GPU or on the CPU."""
    import torch

    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def estimated_batch_size(device: torch.device, precision: str, images: int) -> int:
    """How many images of the largest size fit into a GPU's free memory at a time, about.

    On the CPU it is 1: one image occupies all cores.

    Args:
        images: how many there are; the result is no larger.
    """
    import torch

    if device.type != "cuda":
        return 1
    free, _ = torch.cuda.mem_get_info(device)
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    each = _BYTES_PER_IMAGE * dtype_of(precision).itemsize // 4
    return max(1, min((free - _SPARE_BYTES) // each, _MOST_IMAGES, images))


def keep_freed_memory(keep: bool = True) -> None:
    """Have this process keep the memory that it frees, to be used again, where it runs on glibc.

    glibc returns large blocks to the system at once. A network on the CPU then gets each of its
    maps as new pages, which the system has to clear first: some 6 GB per image with x152.

    Args:
        keep: False: from now on as glibc does.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, or a static one
        return
    for parameter, value in (_MALLOC_KEEP if keep else _MALLOC_DEFAULT).items():
        mallopt(parameter, value)


def check_precision(precision: str, device: torch.device | None = None) -> None:
    """Raise ConfigError for an unknown precision, or one that ``device``, if given, lacks.

    GPUs before Ampere have neither TF32 nor bfloat16. PyTorch's float16 convolutions on a CPU take
    at least a hundred times as long as float32 ones.
    """
    valid = PRECISIONS
    if device is not None and device.type == "cpu":
        valid = ("fp32", "bf16")
    elif device is not None:
        import torch

        if torch.cuda.get_device_capability(device) < _AMPERE:
            valid = ("fp32", "fp16")
    if precision not in valid:
        reason = f"{device} doesn't have it" if precision in PRECISIONS else ""
        raise ConfigError(reason, field="precision", value=precision, valid=valid)


def check_compile(
    mode: str, device: torch.device | None = None, precision: str | None = None
) -> None:
    """Raise ConfigError for an unknown mode, or one that ``device``, if given, can't have.

    Inductor's programs are built by a C++ compiler; those for a GPU by Triton and a C compiler. On
    a CPU, bf16 has convolutions of oneDNN that it doesn't know.
    """
    reason = ""
    if device is not None and mode == "graphs" and device.type == "cpu":
        reason = "CUDA graphs need an NVIDIA GPU"
    elif device is not None and mode == "inductor":
        is_cpu = device.type == "cpu"
        program = os.environ.get("CXX", "g++") if is_cpu else os.environ.get("CC", "gcc")
        if is_cpu and precision == "bf16":
            reason = "on the CPU not with `precision`=bf16"
        elif shutil.which(program) is None:
            reason = f"needs a compiler, and {program} isn't here"
        elif not is_cpu and importlib.util.find_spec("triton") is None:
            reason = "needs Triton, which isn't installed"
    if reason or mode not in COMPILE_MODES:
        valid = [m for m in COMPILE_MODES if m != mode]
        raise ConfigError(reason, field="compile", value=mode, valid=valid)


def dtype_of(precision: str) -> torch.dtype:
    """The dtype of the network's weights and maps."""
    import torch

    return getattr(torch, _DTYPES[precision])


@contextlib.contextmanager
def arithmetic(precision: str = "fp32") -> Iterator[None]:
    """Within the block, PyTorch uses TF32 on GPUs for ``tf32``, and for no other precision.

    By default, PyTorch's convolutions use it. cuDNN's settings are :data:`CUDNN`.
    """
    import torch

    cudnn, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, products.allow_tf32, cudnn.benchmark, cudnn.deterministic
    cudnn.allow_tf32 = products.allow_tf32 = precision == "tf32"
    cudnn.benchmark, cudnn.deterministic = CUDNN["benchmark"], CUDNN["deterministic"]
    try:
        yield
    finally:
        cudnn.allow_tf32, products.allow_tf32, cudnn.benchmark, cudnn.deterministic = before
