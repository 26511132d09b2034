"""Extract region features: `python tools/extract.py model=x152 input.dir=photos`; see --help."""

from __future__ import annotations

import dataclasses
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import extract_options
import hydra
from extract_options import strings
from launching import SomeImagesFailed, command, in_sweep, run, task
from omegaconf import DictConfig, OmegaConf

from vmb_d2.checkpoint.released import released_model
from vmb_d2.checkpoint.sources import is_repository, model_beside
from vmb_d2.config import MODEL_NAMES, RELEASED_WEIGHTS, VMBModel, named_model, read_vmb_model
from vmb_d2.config.input_step import InputStep
from vmb_d2.config.vmb_model import EXCLUSIVE_BOXES, MMF_NAMED
from vmb_d2.data.batching import Batching
from vmb_d2.data.given_boxes import GivenBoxes
from vmb_d2.data.image_list import (
    InputImage,
    is_image_list,
    list_images,
    name_images,
    read_image_lists,
    root_of,
    select_images,
    without_excluded,
)
from vmb_d2.engine.job import ExtractionJob
from vmb_d2.errors import ConfigError
from vmb_d2.output.shards import Shard, source_name
from vmb_d2.selection.options import RegionOptions
from vmb_d2.stores import format_named
from vmb_d2.structures.class_names import NONE, ClassNames, read_class_names
from vmb_d2.utils.devices import keep_freed_memory
from vmb_d2.utils.downloads import cache_folder

if TYPE_CHECKING:
    from vmb_d2.extractor import RegionFeatureExtractor

FOLDER = Path(__file__).resolve().parent
CONFIGS = FOLDER / "conf"  # in the wheel
if not CONFIGS.is_dir():
    CONFIGS = FOLDER.parent / "conf"

logger = logging.getLogger("extract")


def input_changes(cfg: DictConfig) -> dict[str, Any]:
    """What the user wants of :class:`InputStep` in place of the model's own."""
    names = (field.name for field in dataclasses.fields(InputStep))
    chosen = {name: cfg.input.get(name) for name in names}
    return {name: value for name, value in chosen.items() if value is not None}


def model_description(cfg: DictConfig) -> VMBModel | None:
    """What is known of the model; None where the checkpoint, or a yaml to fetch, has to say it."""
    description = described_model(cfg)
    return description and description.with_input(input_changes(cfg))


def described_model(cfg: DictConfig) -> VMBModel | None:
    name = cfg.model.name
    if cfg.model.config_file:
        return read_vmb_model(cfg.model.config_file)
    weights = OmegaConf.select(cfg, "model.weights")  # None where it is missing, too
    if weights and name in ("vmb", "frcnn_vg"):
        beside = model_beside(weights, cfg.cache_dir, download=False)
        if beside or is_repository(weights):
            return beside
    if name in RELEASED_WEIGHTS and not weights:
        return released_model(name, cfg.cache_dir, download=False)
    return named_model(name) if name in MODEL_NAMES else None


def naming(cfg: DictConfig) -> str:
    return cfg.input.names or ("relative" if cfg.input.recursive else "mmf")


def input_images(cfg: DictConfig) -> tuple[list[InputImage], list[InputImage]]:
    """All images, and those that the run is about."""
    lists = strings(cfg.input.list, "input_list")
    folder = cfg.input.dir or ""
    if lists and cfg.input.recursive:
        raise ConfigError("`recursive` looks into `input_dir`; it doesn't go with `input_list`")
    if not (lists or folder):
        raise ConfigError("`input_dir` is missing: a folder of images, or one image")
    if is_image_list(folder):
        reason = "is a list of images, to be given as `input_list`"
        raise ConfigError(reason, field="input_dir", value=folder)
    if lists:
        paths = read_image_lists(lists, folder)
    else:
        paths = list_images(
            folder, cfg.input.recursive, strings(cfg.input.extensions, "extensions")
        )
    root = root_of(folder)
    images = chosen = name_images(paths, naming(cfg), root)
    if cfg.input.exclude_list:
        chosen = without_excluded(images, cfg.input.exclude_list, naming(cfg), root)
    return images, select_images(chosen, cfg.input.start_index, cfg.input.end_index)


def shard_of(cfg: DictConfig) -> Shard | None:
    """Which part of the images is this process'; None: all, and the output folder is its own."""
    index, count = cfg.shard.index, cfg.shard.count
    lists = strings(cfg.input.list, "input_list")
    source = source_name(lists) if lists and in_sweep() else ""
    if index is None and count is None:
        return Shard(source) if source else None
    if index is None or count is None:
        raise ConfigError(
            "`shard_index` and `shard_count` go together: which shard, from 0, and of how many; "
            "with -m, `shard_index`='range(0,8)' is each of 8"
        )
    return Shard(source, count, index)


def given_boxes(
    cfg: DictConfig, images: list[InputImage], description: VMBModel | None
) -> GivenBoxes | None:
    if not cfg.boxes.file:
        return None
    boxes = GivenBoxes.read(
        cfg.boxes.file,
        box_format=cfg.boxes.format,
        normalized=cfg.boxes.normalized,
        inclusive=cfg.boxes.inclusive,
        by_default=description is None or description.box_convention not in EXCLUSIVE_BOXES,
    )
    without, unused = boxes.assign(images, root_of(cfg.input.dir or ""))
    if without:
        counts = (without, len(images), cfg.boxes.file)
        logger.warning("%d of %d images have no entry in %s: they get no region", *counts)
    if unused:
        logger.info("%s: %d entries are of images beyond this run", cfg.boxes.file, unused)
    return boxes


def region_options(cfg: DictConfig) -> RegionOptions:
    return RegionOptions(
        feature_names=strings(cfg.extract.feature_name, "feature_name"),
        num_features=cfg.extract.num_features,
        confidence_threshold=cfg.extract.confidence_threshold,
        background=cfg.extract.background,
        min_features=cfg.extract.min_features,
        max_features=cfg.extract.max_features,
        read_out=cfg.read_out,
    )


def class_names(cfg: DictConfig, formats: list[str], description: VMBModel | None) -> ClassNames:
    """Those given, also for the record; where a format needs them, else MMF's of VMB's models."""
    source, attributes = cfg.output.class_names, cfg.output.attribute_names
    if source is None:
        needed = any(format_named(name).writer.needs_class_names for name in formats)
        is_other = description is not None and description.box_convention != MMF_NAMED
        if needed and is_other:
            logger.info("classes go by number: no file of their names is given")
        if is_other or not needed:
            source = NONE
    return read_class_names(source, cache_folder(cfg.cache_dir), attribute_source=attributes)


def extraction_job(
    cfg: DictConfig,
    every_image: list[InputImage],
    selected: list[InputImage],
    description: VMBModel | None,
) -> tuple[ExtractionJob, list[InputImage]]:
    """The job, and its share of the images.

    ``every_image``, ``selected``: see :func:`input_images`.
    """
    batching = Batching(cfg.extract.batching, cfg.extract.batch_size)
    boxes = given_boxes(cfg, selected, description)
    images, shard = selected, shard_of(cfg)
    if shard:
        images = shard.share(every_image, selected, batching.chunk)
    formats = strings(cfg.output.format, "output_format")
    extraction = ExtractionJob(
        folder=cfg.output.dir,
        formats=formats,
        dtype=cfg.output.dtype,
        clip_boxes=cfg.output.clip_boxes,
        options=region_options(cfg),
        precision=cfg.precision,
        boxes=boxes,
        naming=naming(cfg),
        batching=batching,
        max_failures=cfg.input.max_failures,
        workers=cfg.extract.workers,
        allow_mismatch=cfg.output.allow_mismatch,
        foreign=cfg.output.foreign,
        shard=shard,
        class_names=class_names(cfg, formats, description),
        record={
            "configuration": OmegaConf.to_container(cfg, resolve=True),
            "command": command(),
            **({"shard": shard.describe(every_image)} if shard else {}),
        },
    )
    return extraction, images


def load_extractor(cfg: DictConfig, description: VMBModel | None) -> RegionFeatureExtractor:
    from vmb_d2.extractor import RegionFeatureExtractor

    released = cfg.model.name if cfg.model.name in RELEASED_WEIGHTS else None
    weights = OmegaConf.select(cfg, "model.weights")  # None where it is missing, too
    extractor = RegionFeatureExtractor.from_pretrained(
        description or released,
        weights=weights or (RELEASED_WEIGHTS.get(released) if description else None),
        device=cfg.device,
        cache_dir=cfg.cache_dir,
        unsafe_load=cfg.model.unsafe_load,
        precision=cfg.precision,
        compile=cfg.extract.compile,
        layer_by_layer=cfg.extract.layer_by_layer,
        input_changes=input_changes(cfg),
        **vars(region_options(cfg)),
    )
    if extractor.model.device.type == "cpu":
        keep_freed_memory()
    return extractor


@hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="extract")
@task
def extract(cfg: DictConfig) -> None:
    every_image, selected = input_images(cfg)
    description = model_description(cfg)
    extraction, images = extraction_job(cfg, every_image, selected, description)
    counts = extraction.run(
        images,
        lambda: load_extractor(cfg, description),
        description,
        of_all_shards=selected,
    )
    done = f"{counts.extracted} extracted, {counts.skipped} there before"
    if counts.failed:
        failed = f"{counts.failed} of {len(images)} images failed; {done}"
        raise SomeImagesFailed(f"{extraction.name}: {failed}" if extraction.shard else failed)
    logger.info("%s: %s", extraction.name, done)


def program() -> int:
    """The console command. Returns the exit status."""
    extract_options.register()
    return run(extract)


if __name__ == "__main__":
    sys.exit(program())
