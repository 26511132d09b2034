"""Extract region features: `python tools/extract.py model=x152 input.dir=photos`; see --help."""

import logging

import extract_config
import hydra
from command_line import SomeImagesFailed, device_of, required, run, task
from omegaconf import DictConfig

from vmb_d2.config import MODEL_NAMES, VMBModel, named_model, read_vmb_model
from vmb_d2.extractor import RegionFeatureExtractor, RegionOptions
from vmb_d2.inputs import list_images, read_exclude_list, select_images
from vmb_d2.mmf_files import MMFWriter
from vmb_d2.pretrained import load_model
from vmb_d2.runner import ExtractionRun

logger = logging.getLogger("extract")


def model_description(cfg: DictConfig) -> VMBModel | None:
    """What the configuration says of the model; None where the checkpoint has to say it."""
    if cfg.model.config_file:
        return read_vmb_model(cfg.model.config_file)
    return named_model(cfg.model.name) if cfg.model.name in MODEL_NAMES else None


@hydra.main(version_base="1.3", config_path="../conf", config_name="extract")
@task
def main(cfg: DictConfig) -> None:
    exclude_list = cfg.input.exclude_list
    exclude = read_exclude_list(exclude_list) if exclude_list else frozenset()
    paths = list_images(required(cfg, "input.dir"))
    paths = select_images(paths, exclude, cfg.input.start_index, cfg.input.end_index)
    options = RegionOptions(
        feature_name=cfg.extract.feature_name,
        num_features=cfg.extract.num_features,
        confidence_threshold=cfg.extract.confidence_threshold,
        background=cfg.extract.background,
    )
    extraction = ExtractionRun(
        MMFWriter(cfg.output.dir),
        batch_size=cfg.extract.batch_size,
        batching=cfg.extract.batching.value,
    )
    pending = extraction.pending(paths)
    if not pending:
        logger.info("%s: nothing to do, %d images are there", cfg.output.dir, len(paths))
        return
    device = device_of(cfg.device)
    description = model_description(cfg)
    if description:
        options.choose_feature(description.feature_names)  # before a long download
    logger.info("%d of %d images to extract, on %s", len(pending), len(paths), device)
    model = load_model(
        required(cfg, "model.weights"),
        description,
        device=device,
        cache_dir=cfg.cache_dir,
        unsafe=cfg.model.unsafe_load,
    )
    report = extraction(paths, pending, RegionFeatureExtractor(model, options))
    counts = f"{report.extracted} extracted, {report.skipped} there before"
    if report.failures:
        raise SomeImagesFailed(f"{len(report.failures)} of {len(paths)} images failed; {counts}")
    logger.info("%s: %s", cfg.output.dir, counts)


if __name__ == "__main__":
    extract_config.register()
    run(main)
