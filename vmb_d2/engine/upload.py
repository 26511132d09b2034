"""Batches on their way to the device, while it computes the ones before."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from ..data.batching import Size
from ..data.preprocessing import NetworkImage

if TYPE_CHECKING:  # a run with nothing to do doesn't import torch
    import torch

    from ..extractor import RegionFeatureExtractor
    from ..modeling import NetworkBatch


class Uploader:
    """Pads batches and brings them to the extractor's device, in a thread.

    On a GPU the copy has a stream of its own, and the result is there when it is got.
    """

    def __init__(self, extractor: RegionFeatureExtractor):
        self._extractor = extractor
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="uploader")

    def __enter__(self) -> Uploader:
        return self

    def __exit__(self, *error: object) -> None:
        self._thread.shutdown(cancel_futures=True)

    @functools.cached_property
    def stream(self) -> torch.cuda.Stream | None:
        """One for all batches, since PyTorch keeps freed memory for the stream that had it."""
        import torch

        device = self._extractor.model.device
        return torch.cuda.Stream(device) if device.type == "cuda" else None

    def upload(self, images: Sequence[NetworkImage], padded_size: Size) -> Future[NetworkBatch]:
        """Begin to bring a batch to the device; see :meth:`RegionFeatureExtractor.to_network`."""
        return self._thread.submit(self._upload, images, padded_size)

    def _upload(self, images: Sequence[NetworkImage], padded_size: Size) -> NetworkBatch:
        import torch

        if self.stream is None:
            return self._extractor.to_network(images, padded_size)
        with torch.cuda.stream(self.stream):
            batch = self._extractor.to_network(images, padded_size)
            self.stream.synchronize()
        return batch
