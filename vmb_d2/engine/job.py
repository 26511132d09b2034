"""One run into an output folder: settings compared, images extracted, all of it recorded."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import VMBModel
from ..data.given_boxes import GivenBoxes
from ..data.image_list import is_folder
from ..errors import ConfigError
from ..output.failures import FailureLog
from ..output.foreign import CHOICES, ForeignImages
from ..output.lock import sole_use
from ..output.shards import Shard
from ..output.store_set import StoreSet
from ..selection.options import RegionOptions
from ..stores import format_named
from ..structures.class_names import NO_NAMES, ClassNames
from ..structures.input_image import InputImage
from ..utils.precision import check_name
from ..utils.text import bytes_in_words
from .auto_batch_size import AUTO, checked_batch_size
from .pipeline import Counts, ExtractionPipeline
from .run_record import RunRecord

if TYPE_CHECKING:  # what it takes is imported when there is something to do
    from ..extractor import RegionFeatureExtractor

logger = logging.getLogger(__name__)


@dataclass
class ExtractionJob:
    """What to extract, how, and whereto.

    Attributes:
        folder: the output folder.
        formats, dtype, clip_boxes: see :class:`vmb_d2.output.store_set.StoreSet`.
        options: which features of which regions.
        precision: of the extractor, where it is known before loading.
        boxes: to take instead of the proposals, assigned to the images.
        naming: how the images got their names.
        batch_size: images that go through the network together, at most; ``"auto"`` for as many
            as the memory allows, see :mod:`vmb_d2.engine.memory_probe`.
        batching, max_failures, workers: see :class:`vmb_d2.engine.pipeline.ExtractionPipeline`.
        allow_mismatch: write into a folder whose features come of other settings.
        foreign: of images that are there and that the folder's record doesn't vouch for, what to do
            with those that are whole: ``"keep"`` or ``"redo"``. Damaged ones are done anew.
        shard: which part of the run this is; None for the whole.
        class_names: of the model, without the background; for the formats that write them.
        record: plain values for the manifest, such as the user's configuration.
    """

    folder: str | Path
    formats: Sequence[str] = ("mmf",)
    dtype: str = "float32"
    clip_boxes: bool | None = None
    options: RegionOptions = field(default_factory=RegionOptions)
    precision: str | None = None
    boxes: GivenBoxes | None = None
    naming: str = "mmf"
    batch_size: int | str = 1
    batching: str = "bucketed"
    max_failures: int | None = None
    workers: int | None = None
    allow_mismatch: bool = False
    foreign: str = "keep"
    shard: Shard | None = None
    class_names: ClassNames = NO_NAMES
    record: dict[str, Any] = field(default_factory=dict)

    def run(
        self,
        images: Sequence[InputImage],
        load: Callable[[], RegionFeatureExtractor],
        description: VMBModel | None = None,
        *,
        of_all_shards: Sequence[InputImage] | None = None,
    ) -> Counts:
        """Extract what isn't there yet.

        Args:
            images: of the run, or of its shard, each with its own name.
            load: gives the extractor; not called where nothing is to do.
            description: of the model, as far as it is known before loading.
            of_all_shards: the images that will be beside each other; None: ``images``.

        Raises:
            ConfigError, InputError: before any work.
            OutputError: before any work, where the folder's features are of other settings; later,
                where features can't be written. What was flushed stays.
            TooManyFailures, and what ``load`` raises.
        """
        batch_size = checked_batch_size(self.batch_size, self.batching)
        if self.precision is not None:
            check_name(self.precision)
        if self.foreign not in CHOICES:
            raise ConfigError(f"output.foreign={self.foreign}: valid are {', '.join(CHOICES)}")
        stores = StoreSet(
            self.folder,
            self.formats,
            self.options.feature_names,
            self.dtype,
            self.shard,
            self.clip_boxes,
            class_names=replace(self.class_names, with_background=self.options.background),
        )
        stores.check_shards()
        named = of_all_shards or images
        stores.check_names(image.name for image in named if not is_folder(image.path))
        known = self._settings(description)
        report = Counts()
        with sole_use(self.folder, self.shard) as lease:
            record = RunRecord(
                self.folder,
                self.shard,
                lease,
                len(images),
                report,
                allow_mismatch=self.allow_mismatch,
                content=self.record,
            )
            record.require(known)
            foreign = ForeignImages(
                stores,
                (image.name for image in images if not is_folder(image.path)),
                record.vouched(),
                redo=self.foreign == "redo",
            )
            foreign.read_files()
            failures = FailureLog(record.own_folder)
            run = ExtractionPipeline(
                stores,
                failures,
                batch_size=1 if batch_size == AUTO else batch_size,
                batching=self.batching,
                boxes=self.boxes,
                max_failures=self.max_failures,
                workers=self.workers,
                report=report,
                before_write=record.show,
            )
            with record.kept(known, stores.describe()), stores:
                foreign.read_folders()
                if description is not None:
                    self._require_dimension(foreign, description.feature_dimension)
                record.note_foreign(foreign)
                pending = run.pending(images)
                # Whether a folder can't be listed still, its image here says once more.
                failures.settle(lambda name: is_folder(name) or name in stores)
                report.skipped = len(images) - len(pending)
                record.count(known, len(pending))
                if pending:
                    record.show(report)
                    extractor = load()
                    if batch_size == AUTO:
                        run.batch_size = self._choose_batch_size(extractor, len(pending))
                    self._require_dimension(foreign, extractor.model.feature_dimension)
                    foreign.remove()
                    self._begin(record, stores, extractor, run, len(pending), len(images))
                    began = time.perf_counter()
                    run.run(images, pending, extractor)
                    report.seconds = time.perf_counter() - began
                    failures.settle(lambda name: not is_folder(name) and name in stores)
                else:
                    logger.info("%s: nothing to do, %d images are there", self.name, len(images))
        return report

    @property
    def name(self) -> str:
        """The run in words."""
        return f"{self.folder}, {self.shard}" if self.shard else str(self.folder)

    def _require_dimension(self, foreign: ForeignImages, dimension: int) -> None:
        if not self.allow_mismatch:
            foreign.require(dimension)

    def _choose_batch_size(self, extractor: RegionFeatureExtractor, pending: int) -> int:
        from .memory_probe import batch_size_for

        boxes = self.boxes.most_count() if self.boxes is not None else None
        choice = batch_size_for(extractor, pending, boxes)
        logger.info("extract.batch_size=auto: %s", choice)
        return choice.batch_size

    def _begin(
        self,
        record,
        stores,
        extractor: RegionFeatureExtractor,
        run: ExtractionPipeline,
        pending,
        count,
    ) -> None:
        from ..utils.devices import device_name

        device = extractor.model.device
        self.class_names.require(extractor.model.num_classes)
        record.begin(
            self._settings(extractor.description, extractor),
            {
                "device": str(device),
                "device_name": device_name(device),
                "precision": extractor.precision,
                "batch_size": run.batch_size,
            },
        )
        words = "%s: %d of %d images to extract, on %s"
        logger.info(words, self.name, pending, count, device)
        self._log_space(stores, extractor, pending)

    def _settings(
        self, description: VMBModel | None, extractor: RegionFeatureExtractor | None = None
    ) -> dict[str, Any]:
        """All that changes features; None what isn't known before the model is loaded."""
        features = None
        if description is not None:
            features = self.options.choose_features(description.feature_names)
        regions = {"source": "proposals", **self.options.settings()}
        if self.boxes is not None:
            background = self.options.background
            regions = {"source": "given", "background": background, **self.boxes.settings()}
        batches = f"mmf, of {self.batch_size}" if self.batching == "mmf" else self.batching
        return {
            "model": description.to_dict() if description else None,
            "weights_sha256": extractor.weights_sha256 if extractor else None,
            "precision": extractor.precision if extractor else self.precision,
            "feature_names": features,
            "regions": regions,
            "batching": batches,
            "dtype": self.dtype,
            "clip_boxes": {n: format_named(n).clips(self.clip_boxes) for n in self.formats},
            "names": self.naming,
        }

    def _log_space(self, stores: StoreSet, extractor: RegionFeatureExtractor, count: int) -> None:
        """Say what the images will take on the disk, and whether there is as much."""
        model = extractor.model
        regions = self.boxes.mean_count() if self.boxes else self.options.most_regions
        classes = model.num_classes + self.options.background
        need = count * stores.bytes_per_image(regions, model.feature_dimension, classes)
        free = stores.free_bytes()
        log = logger.warning if need > free else logger.info
        log("they will take about %s; %s are free", bytes_in_words(need), bytes_in_words(free))
