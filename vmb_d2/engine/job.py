"""One run into an output folder: what is done is skipped, the rest is extracted, all recorded."""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from ..config import VMBModel
from ..config.read_out import MMF_READ_OUT
from ..data.batching import Batching
from ..data.given_boxes import GivenBoxes
from ..data.image_list import is_folder
from ..data.loading import default_workers
from ..errors import ConfigError
from ..output.failures import FailureLog
from ..output.foreign import CHOICES, ForeignImages
from ..output.lock import sole_use
from ..output.manifest import Manifest
from ..output.shards import Shard
from ..output.store_set import StoreSet
from ..selection.options import RegionOptions
from ..stores import format_named
from ..structures.class_names import NO_NAMES, ClassNames
from ..structures.input_image import InputImage
from ..utils import interruption
from ..utils.devices import CUDNN, check_precision, device_name, estimated_batch_size
from ..utils.lease import Lease
from .memory_format import chosen_memory_formats
from .pipeline import Counts, ExtractionPipeline

if TYPE_CHECKING:  # a run with nothing to do doesn't import torch
    from ..extractor import RegionFeatureExtractor

STOPPED = (
    "stopped: %(done)d of %(images)d images are stored, %(failed)d failed; the same command, run "
    "again, goes on from there"
)

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
        batching: how images are grouped into batches. For the batch size ``"auto"`` see
            :func:`vmb_d2.utils.devices.estimated_batch_size`.
        max_failures, workers: see :class:`vmb_d2.engine.pipeline.ExtractionPipeline`. Without a
            number of workers, :func:`vmb_d2.data.loading.default_workers`.
        allow_mismatch: write into a folder whose features come of other settings.
        foreign: what to do with whole images that are there and that the folder's manifest doesn't
            vouch for: ``"keep"`` or ``"redo"``. Damaged ones are extracted again.
        shard: which part of the run this is; None for the whole.
        class_names: of the model's classes, without the background, and of its attributes; for the
            formats that write them.
        record: plain values for the manifest, such as the user's configuration.

    Raises:
        ConfigError: a value out of range.
    """

    folder: str | Path
    formats: Sequence[str] = ("mmf",)
    dtype: str = "float32"
    clip_boxes: bool | None = None
    options: RegionOptions = field(default_factory=RegionOptions)
    precision: str | None = None
    boxes: GivenBoxes | None = None
    naming: str = "mmf"
    batching: Batching = field(default_factory=Batching)
    max_failures: int | None = None
    workers: int | None = None
    allow_mismatch: bool = False
    foreign: str = "keep"
    shard: Shard | None = None
    class_names: ClassNames = NO_NAMES
    record: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("max_failures", "workers"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ConfigError("has to be at least 0", field=name, value=value)
        if self.precision is not None:
            check_precision(self.precision)
        if self.foreign not in CHOICES:
            raise ConfigError(field="foreign", value=self.foreign, valid=CHOICES)

    def run(
        self,
        images: Sequence[InputImage],
        load_extractor: Callable[[], RegionFeatureExtractor],
        description: VMBModel | None = None,
        *,
        of_all_shards: Sequence[InputImage] | None = None,
    ) -> Counts:
        """Extract what isn't there yet.

        Args:
            images: of the run, or of its shard, each with its own name.
            load_extractor: not called where nothing is to do.
            description: of the model, as far as it is known before loading.
            of_all_shards: the images that will be beside each other; None: ``images``.

        Raises:
            ConfigError, InputError: before any work.
            OutputError: before any work, where the folder's features are of other settings; later,
                where features can't be written. What was flushed stays.
            TooManyFailures, and what ``load_extractor`` raises.
        """
        stores = self._stores(of_all_shards or images)
        settings = self._settings(description)
        counts = Counts(len(images))
        with contextlib.ExitStack() as stack:
            lease = stack.enter_context(sole_use(self.folder, self.shard))
            manifest = Manifest(self.folder, self.shard)
            mismatch = manifest.require(settings, self.allow_mismatch)
            foreign = ForeignImages(
                stores,
                (image.name for image in images if not is_folder(image.path)),
                manifest.vouched(),
                redo=self.foreign == "redo",
            )
            foreign.read_files()
            stack.enter_context(manifest.recorded(lambda: _outcome(manifest, lease, counts)))
            content = {**self.record, "stores": stores.describe()}
            if not manifest.runs:
                content["began"] = lease.path.stat().st_mtime
            # Those of a whole run bind no later one until features are made with them.
            content["settings"] = manifest.settings or (settings if self.shard else {})
            content["counts"] = manifest.content.get("counts", counts.totals())
            manifest.begin({"mismatch": mismatch}, **content)
            stack.enter_context(stores)
            foreign.read_folders()
            if description is not None and not self.allow_mismatch:
                foreign.require(description.feature_dimension)
            done = stores.present(image.name for image in images)
            pending = [i for i in images if i.name not in done or is_folder(i.path)]
            counts.skipped = len(images) - len(pending)
            failures = FailureLog(manifest.folder)
            # Whether a folder still can't be listed, its entry in the list of images says again.
            failures.settle(lambda name: is_folder(name) or name in stores)
            if not pending:
                logger.info("%s: nothing to do, %d images are there", self.name, len(images))
                return counts
            _show(lease, counts)
            extractor = load_extractor()
            device = extractor.model.device
            attributes = extractor.description.num_attributes if extractor.description else 0
            self.class_names.require(extractor.model.num_classes, attributes)
            settings = self._settings(extractor.description, extractor)
            manifest.share(settings)
            mismatch = manifest.require(settings, self.allow_mismatch)
            if not self.allow_mismatch:
                foreign.require(extractor.model.feature_dimension)
            foreign.remove()
            batching = self._chosen_batching(extractor, len(pending))
            formats = chosen_memory_formats(extractor, manifest.runs, pending, batching.most)
            if formats:
                extractor.use_memory_formats(formats)
            run = {
                "device": str(device),
                "device_name": device_name(device),
                "precision": extractor.precision,
                "compile": extractor.compile,
                "layer_by_layer": extractor.layer_by_layer,
                "memory_formats": formats,
                "cudnn": CUDNN if device.type == "cuda" else None,
                "batch_size": batching.most,
                "mismatch": mismatch,
            }
            settings["clip_boxes"] = manifest.clip_boxes | settings["clip_boxes"]
            manifest.update(run, settings=settings, counts=counts.totals())
            words = "%s: %d of %d images to extract, on %s"
            logger.info(words, self.name, len(pending), len(images), device)
            self._log_space(stores, extractor, len(pending))
            pipeline = ExtractionPipeline(
                extractor,
                stores,
                failures,
                counts,
                batching=batching,
                boxes=self.boxes,
                max_failures=self.max_failures,
                workers=default_workers(device) if self.workers is None else self.workers,
                before_write=lambda: _show(lease, counts),
                uploads_ahead=device.type == "cuda",
            )
            # A signal waits until the stores are closed and the end is recorded.
            with interruption.deferred(), stack.pop_all():
                try:
                    pipeline.run(images, pending)
                except BaseException:
                    logger.info(STOPPED, counts.totals())
                    raise
                failures.settle(lambda name: not is_folder(name) and name in stores)
        return counts

    @property
    def name(self) -> str:
        """The run in words."""
        return f"{self.folder}, {self.shard}" if self.shard else str(self.folder)

    def _stores(self, images: Sequence[InputImage]) -> StoreSet:
        """The stores, not open yet. Raises ConfigError, InputError."""
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
        stores.check_names(image.name for image in images if not is_folder(image.path))
        return stores

    def _settings(
        self, description: VMBModel | None, extractor: RegionFeatureExtractor | None = None
    ) -> dict[str, Any]:
        """All that changes features; None for what isn't known before the model is loaded."""
        features = None
        if description is not None:
            features = self.options.choose_features(description.feature_names)
        regions: dict[str, Any] = {"source": "proposals"}
        if description is not None or extractor is not None:
            own = description.read_out if description is not None else MMF_READ_OUT
            regions |= self.options.settings(own)
        if self.boxes is not None:
            background = self.options.background
            regions = {"source": "given", "background": background, **self.boxes.settings()}
        return {
            "model": description.to_dict() if description else None,
            "weights_sha256": extractor.weights_sha256 if extractor else None,
            "precision": extractor.precision if extractor else self.precision,
            "feature_names": features,
            "regions": regions,
            "batching": str(self.batching),
            "dtype": self.dtype,
            "clip_boxes": {n: format_named(n).clips(self.clip_boxes) for n in self.formats},
            "names": self.naming,
        }

    def _chosen_batching(self, extractor: RegionFeatureExtractor, pending: int) -> Batching:
        if not self.batching.is_auto:
            return self.batching
        batch_size = estimated_batch_size(extractor.model.device, extractor.precision, pending)
        logger.info("batch size: %d, as an estimate of what memory allows", batch_size)
        return replace(self.batching, batch_size=batch_size)

    def _log_space(self, stores: StoreSet, extractor: RegionFeatureExtractor, pending: int) -> None:
        """Log what the images will take on the disk, as a warning where it hasn't the room."""
        regions = self.boxes.mean_count() if self.boxes else extractor.read_out_rule.most
        classes = extractor.model.num_classes + self.options.background
        dimension = extractor.model.feature_dimension
        need = pending * stores.bytes_per_image(regions, dimension, classes)
        free = shutil.disk_usage(stores.folder).free
        log = logger.warning if need > free else logger.info
        sizes = (tqdm.format_sizeof(size, "B") for size in (need, free))
        log("they will take about %s; %s are free", *sizes)


def _show(lease: Lease, counts: Counts) -> None:
    """Let others see in the lease how far the run is. Raises OutputError where it is lost."""
    lease.require()
    seconds = round(counts.seconds, 3)
    lease.note = {**counts.totals(), "extracted": counts.extracted, "seconds": seconds}


def _outcome(
    manifest: Manifest, lease: Lease, counts: Counts
) -> tuple[dict[str, int], dict[str, Any]]:
    """The counts for the manifest, and values for the run's record.

    Raises OutputError where this process has lost the lease, and with it the manifest.
    """
    lease.require()
    totals = counts.totals() if counts.skipped is not None else manifest.content["counts"]
    return totals, {
        "extracted": counts.extracted,
        "failed": counts.failed,
        "out_of_memory": counts.out_of_memory,
    }
