"""How many images go through the network at a time: what can be asked for, and the estimate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import ConfigError

if TYPE_CHECKING:
    from ..extractor import RegionFeatureExtractor

AUTO = "auto"

# The smallest maps of the network, of 25 x 42 positions and 2048 channels, are 144 tiles of
# 128 x 128 for each image: one image occupies the 132 multiprocessors of an H100, and with 16
# images at most 1/16 of the time is lost in a last round that isn't full.
MOST_AUTO = 16

# What x152 allocates in float32 for one image of 800 x 1344, without the weights, is 0.9 GB.
BYTES_PER_IMAGE = 10**9
FIXED_BYTES = 10**9  # workspaces of cuDNN and cuBLAS, fragmentation


def checked_batch_size(value: Any, batching: str) -> int | str:
    """A batch size as a number of at least 1, or :data:`AUTO`.

    Raises ConfigError for anything else, and for AUTO where ``batching`` is MMF's.
    """
    if value == AUTO:
        if batching == "mmf":
            raise ConfigError(
                "with `batching`=mmf features depend on the batch size, so it has to be a number, "
                "the original run's; or take `batching`=bucketed",
                field="batch_size",
                value=value,
            )
        return AUTO
    try:
        number = int(value) if type(value) in (int, str) else 0
    except ValueError:
        number = 0
    if number < 1:
        raise ConfigError(
            f"has to be a whole number, at least 1, or {AUTO}", field="batch_size", value=value
        )
    return number


def estimated_batch_size(extractor: RegionFeatureExtractor, images: int) -> int:
    """How many images of the largest size fit into a GPU's free memory at a time, about.

    On the CPU it is 1: one image occupies all cores.

    Args:
        extractor: whose precision and device it is about.
        images: how many there are to extract.
    """
    from ..utils.devices import dtype_of, free_memory

    device = extractor.model.device
    if device.type != "cuda":
        return 1
    each = BYTES_PER_IMAGE * dtype_of(extractor.precision).itemsize // 4
    fitting = (free_memory(device) - FIXED_BYTES) // each
    return max(1, min(fitting, MOST_AUTO, images))
