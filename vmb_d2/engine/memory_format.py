"""The memory formats of a run on a GPU, measured once where the run is long enough for it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..data.preprocessing import NetworkImage, load
from ..errors import ImageReadError
from ..structures.input_image import InputImage
from ..utils.devices import device_name, is_out_of_memory

if TYPE_CHECKING:  # a run with nothing to do doesn't import torch
    from ..extractor import RegionFeatureExtractor

LONG_RUN = 1000  # images
# In the batch that is measured. It takes 9 passes at most: the time of 36 of the images.
MOST_MEASURED = 4

logger = logging.getLogger(__name__)


def chosen_memory_formats(
    extractor: RegionFeatureExtractor,
    runs: Sequence[Mapping[str, Any]],
    pending: Sequence[InputImage],
    batch_size: int,
) -> dict[str, str] | None:
    """The memory format of each stage; None for those that the model has.

    They are those of the last of the recorded runs that had the same GPU and precision. Without
    one they are measured, where there are at least 1000 images.

    Args:
        extractor: for which they are.
        runs: records of the manifest.
        pending: the images of the run.
        batch_size: its largest number of images at a time.
    """
    device = extractor.model.device
    if device.type != "cuda" or extractor.layer_by_layer:
        return None
    own = device_name(device), extractor.precision
    for run in reversed(runs):
        formats = run.get("memory_formats")
        if formats and (run["device_name"], run["precision"]) == own:
            return formats
    image = _first_readable(extractor, pending) if len(pending) >= LONG_RUN else None
    if image is None:
        return None
    try:
        formats = extractor.fastest_memory_formats(image, min(batch_size, MOST_MEASURED))
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        logger.warning("memory formats: out of memory while they were measured")
        return None
    text = ", ".join(f"{stage} {name}" for stage, name in formats.items())
    logger.info("memory formats, as measured: %s", text)
    return formats


def _first_readable(
    extractor: RegionFeatureExtractor, images: Sequence[InputImage]
) -> NetworkImage | None:
    for image in images:
        try:
            return load(image.path, extractor.input_step)
        except ImageReadError:  # the run records it
            continue
    return None
