"""Extract region features: `python tools/extract.py model=x152 input.dir=photos`; see --help."""

from __future__ import annotations

import logging
import shlex
from typing import TYPE_CHECKING

import extract_config
import hydra
from command_line import SomeImagesFailed, command, in_sweep, required, run, task
from extract_config import Batching, strings
from omegaconf import DictConfig, OmegaConf

from vmb_d2.checkpoint.released import released_model
from vmb_d2.config import MODEL_NAMES, RELEASED_WEIGHTS, VMBModel, named_model, read_vmb_model
from vmb_d2.data.given_boxes import GivenBoxes
from vmb_d2.data.image_list import (
    ExcludeList,
    InputImage,
    is_image_list,
    list_images,
    name_images,
    read_image_lists,
    root_of,
    select_images,
)
from vmb_d2.engine.batch_size import checked_batch_size
from vmb_d2.engine.job import ExtractionJob
from vmb_d2.errors import ConfigError, DownloadError
from vmb_d2.output.shards import Shard, source_name
from vmb_d2.selection.options import RegionOptions
from vmb_d2.stores import format_named
from vmb_d2.structures.class_names import NO_NAMES, ClassNames, read_class_names
from vmb_d2.utils.devices import keep_freed_memory
from vmb_d2.utils.downloads import cache_folder

if TYPE_CHECKING:
    from vmb_d2.extractor import RegionFeatureExtractor

logger = logging.getLogger("extract")


def model_description(cfg: DictConfig) -> VMBModel | None:
    """What is known of the model; None where the checkpoint, or a yaml to fetch, has to say it."""
    name = cfg.model.name
    if cfg.model.config_file:
        return read_vmb_model(cfg.model.config_file)
    if name in RELEASED_WEIGHTS and not OmegaConf.select(cfg, "model.weights"):
        return released_model(name, cfg.cache_dir, download=False)
    return named_model(name) if name in MODEL_NAMES else None


def naming(cfg: DictConfig) -> str:
    return cfg.input.names or ("relative" if cfg.input.recursive else "mmf")


def input_images(cfg: DictConfig) -> tuple[list[InputImage], list[InputImage]]:
    """All images, and those that the run is about."""
    lists = strings(cfg.input.list, "input.list")
    if lists and cfg.input.recursive:
        raise ConfigError("input.recursive looks into input.dir; it doesn't go with input.list")
    folder = cfg.input.dir or ""
    if is_image_list(folder):
        given = shlex.quote(f"input.list={folder}")
        raise ConfigError(f"input.dir={folder}: is a list of images, to be given as {given}")
    if lists:
        paths = read_image_lists(lists, folder)
    else:
        extensions = strings(cfg.input.extensions, "input.extensions")
        paths = list_images(required(cfg, "input.dir"), cfg.input.recursive, extensions)
    root = root_of(folder)
    exclude = ()
    if cfg.input.exclude_list:
        exclude = ExcludeList(cfg.input.exclude_list, naming(cfg), root)
    images = name_images(paths, naming(cfg), root)
    return images, select_images(images, exclude, cfg.input.start_index, cfg.input.end_index)


def shard_of(cfg: DictConfig) -> Shard | None:
    """Which part of the images is this process'; None: all, and the output folder is its own."""
    index, count = cfg.shard.index, cfg.shard.count
    lists = strings(cfg.input.list, "input.list")
    source = source_name(lists) if lists and in_sweep() else ""
    if index is None and count is None:
        return Shard(source) if source else None
    if count is None:
        raise ConfigError(f"shard.count is missing: of how many shards {index} is one")
    if index is None:
        last = Shard(source, count).count - 1
        raise ConfigError(
            f"shard.index is missing: valid are 0 to {last}; for all of them, "
            f"-m shard.index='range(0,{count})'"
        )
    return Shard(source, count, index)


def given_boxes(cfg: DictConfig, images: list[InputImage]) -> GivenBoxes | None:
    if not cfg.boxes.file:
        return None
    boxes = GivenBoxes.read(
        cfg.boxes.file,
        box_format=cfg.boxes.format,
        normalized=cfg.boxes.normalized,
        inclusive=cfg.boxes.inclusive,
    )
    without, unused = boxes.assign(images, root_of(cfg.input.dir or ""))
    if without:
        logger.warning(
            "%d of %d images have no entry in %s: they get no region",
            without,
            len(images),
            cfg.boxes.file,
        )
    if unused:
        logger.info("%s: %d entries are of images beyond this run", cfg.boxes.file, unused)
    return boxes


def region_options(cfg: DictConfig) -> RegionOptions:
    return RegionOptions(
        feature_names=strings(cfg.extract.feature_name, "extract.feature_name"),
        num_features=cfg.extract.num_features,
        confidence_threshold=cfg.extract.confidence_threshold,
        background=cfg.extract.background,
        min_features=cfg.extract.min_features,
        max_features=cfg.extract.max_features,
    )


def class_names(cfg: DictConfig, formats: list[str]) -> ClassNames:
    """What the formats need of them."""
    if not any(format_named(name).writer.needs_class_names for name in formats):
        return NO_NAMES
    try:
        return read_class_names(cfg.output.class_names, cache_folder(cfg.cache_dir))
    except DownloadError as error:
        raise DownloadError(f"{error}, or give a file with output.class_names=") from error


@hydra.main(version_base="1.3", config_path="../conf", config_name="extract")
@task
def main(cfg: DictConfig) -> None:
    batching = cfg.extract.batching
    batch_size = checked_batch_size(cfg.extract.batch_size, batching.value)
    every_image, selected = input_images(cfg)
    boxes = given_boxes(cfg, selected)
    images, shard = selected, shard_of(cfg)
    if shard:
        together = batch_size if batching is Batching.mmf else 1
        images = shard.share(every_image, selected, together)
    formats = strings(cfg.output.format, "output.format")
    job = ExtractionJob(
        folder=cfg.output.dir,
        formats=formats,
        dtype=cfg.output.dtype,
        clip_boxes=cfg.output.clip_boxes,
        options=region_options(cfg),
        precision=cfg.precision,
        boxes=boxes,
        naming=naming(cfg),
        batch_size=batch_size,
        batching=batching.value,
        max_failures=cfg.input.max_failures,
        workers=cfg.extract.workers,
        allow_mismatch=cfg.output.allow_mismatch,
        foreign=cfg.output.foreign,
        shard=shard,
        class_names=class_names(cfg, formats),
        record={
            "configuration": OmegaConf.to_container(cfg, resolve=True, enum_to_str=True),
            "command": command(),
            **({"shard": shard.describe(every_image)} if shard else {}),
        },
    )
    description = model_description(cfg)
    weights = OmegaConf.select(cfg, "model.weights")  # None where it is missing, too
    released = cfg.model.name if cfg.model.name in RELEASED_WEIGHTS else None

    def load() -> RegionFeatureExtractor:
        from vmb_d2.extractor import RegionFeatureExtractor

        extractor = RegionFeatureExtractor.from_pretrained(
            description or released,
            weights=weights or (RELEASED_WEIGHTS.get(released) if description else None),
            device=cfg.device,
            cache_dir=cfg.cache_dir,
            unsafe_load=cfg.model.unsafe_load,
            precision=cfg.precision,
            **vars(job.options),
        )
        if extractor.model.device.type == "cpu":
            keep_freed_memory()
        return extractor

    report = job.run(images, load, description, of_all_shards=selected)
    counts = f"{report.extracted} extracted, {report.skipped} there before"
    if report.failed:
        failed = f"{report.failed} of {len(images)} images failed"
        what = f"{job.name}: {failed}" if shard else failed
        raise SomeImagesFailed(f"{what}; {counts}")
    logger.info("%s: %s", job.name, counts)


if __name__ == "__main__":
    extract_config.register()
    run(main)
