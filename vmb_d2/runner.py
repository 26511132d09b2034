"""A run over many images: what is done is skipped, what fails is reported, the rest goes on."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from . import images
from .errors import ConfigError, ImageReadError
from .extractor import RegionFeatureExtractor
from .inputs import Batch, Size, bucketed_batches, mmf_batches, output_name
from .mmf_files import MMFWriter

BATCHING = ("bucketed", "mmf")

logger = logging.getLogger(__name__)


@dataclass
class Report:
    """What became of the images: how many were extracted, were there before, and failed why."""

    extracted: int = 0
    skipped: int = 0
    failures: dict[str, str] = field(default_factory=dict)


class ExtractionRun:
    """Extracts images into a writer.

    Args:
        writer: stores the regions, and knows which images are done.
        batch_size: images that go through the network together, at most.
        batching: ``"bucketed"``: only images of one padded size share a batch, so that features
            don't depend on batch size, order or batch mates. ``"mmf"``: the original's chunks,
            padded, and clipped to, the largest of the chunk.

    Raises:
        ConfigError: a number or name out of range.
    """

    def __init__(
        self,
        writer: MMFWriter,
        *,
        batch_size: int = 1,
        batching: str = "bucketed",
    ):
        if batch_size < 1:
            raise ConfigError(f"extract.batch_size={batch_size}: has to be at least 1")
        if batching not in BATCHING:
            raise ConfigError(f"extract.batching={batching}: valid are {', '.join(BATCHING)}")
        self.writer = writer
        self.batch_size = batch_size
        self.batching = batching

    def pending(self, paths: Sequence[str]) -> list[str]:
        """Those of ``paths`` that are not done yet."""
        return [path for path in paths if not self.writer.is_done(output_name(path))]

    def __call__(
        self, paths: Sequence[str], pending: Sequence[str], extractor: RegionFeatureExtractor
    ) -> Report:
        """Extract ``pending``.

        Args:
            paths: all images of the run; those that are done have a say in MMF's batches.
            pending: what :meth:`pending` gave for them.
            extractor: does the work.

        Raises OutputError where features can't be written; what was written before stays.
        """
        report = Report(skipped=len(paths) - len(pending))
        with logging_redirect_tqdm(), tqdm(total=len(pending), unit="image") as progress:
            for batch in self._batches(paths, pending, report, progress):
                self._extract(batch, extractor, report, progress)
        return report

    def _batches(self, paths, pending, report: Report, progress: tqdm):
        is_pending = set(pending).__contains__

        def padded_size(path: str) -> Size | None:
            try:
                return images.padded_size(*images.network_size(*images.read_size(path)))
            except ImageReadError as error:
                if is_pending(path):
                    self._fail(path, error, report, progress)
                return None

        if self.batching == "mmf":
            return mmf_batches(paths, self.batch_size, padded_size, is_pending)
        return bucketed_batches(pending, self.batch_size, padded_size)

    def _extract(
        self, batch: Batch, extractor: RegionFeatureExtractor, report: Report, progress: tqdm
    ) -> None:
        loaded = {}
        for path in batch.paths:
            try:
                loaded[path] = self._load(path, batch.padded_size)
            except ImageReadError as error:
                self._fail(path, error, report, progress)
        if not loaded:
            return
        regions = extractor(list(loaded.values()), batch.padded_size)
        for path, image_regions in zip(loaded, regions, strict=True):
            self.writer.write(output_name(path), image_regions)
            report.extracted += 1
            progress.update()

    def _load(self, path: str, padded_size: Size) -> images.NetworkImage:
        image = images.load(path)
        own = images.padded_size(*image.tensor.shape[-2:])
        larger = any(a > b for a, b in zip(own, padded_size, strict=True))
        if larger or (self.batching == "bucketed" and own != padded_size):
            raise ImageReadError(f"{path}: was exchanged for another image while being read")
        return image

    @staticmethod
    def _fail(path: str, error: ImageReadError, report: Report, progress: tqdm) -> None:
        report.failures[path] = str(error)
        logger.warning("failed: %s", error)
        progress.update()
