"""Measure how fast the extraction is: the network, each stage, end to end, and the original's loop.

    python tools/benchmark.py --model x152 --images photos --batch-sizes 1,2,4

All in one process, in turns. docs/performance.md explains the figures.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence

from benchmarking.measuring import EXACT, PARTS, Plan, measure
from benchmarking.report import table

from vmb_d2.checkpoint.released import released_model
from vmb_d2.config import MODEL_NAMES, RELEASED_WEIGHTS, canonical_name, describe_model
from vmb_d2.data.image_list import list_images, name_images, root_of
from vmb_d2.errors import ConfigError
from vmb_d2.extractor import RegionFeatureExtractor
from vmb_d2.stores import format_named
from vmb_d2.stores.base import output_errors
from vmb_d2.structures.input_image import InputImage
from vmb_d2.utils.command_line import at_home, command_line, run
from vmb_d2.utils.devices import PRECISIONS, device_of, keep_freed_memory
from vmb_d2.utils.files import write_whole

EXIT_STATUS = (
    "Exit status: 0 if everything was measured; 2 if not, with one line that says why; 130 after "
    "Ctrl-C."
)
# The options of parameters that have other names in the library.
OPTIONS = {"input_dir": "--images", "model_name": "--model", "output_format": "--format"}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = command_line(__doc__, EXIT_STATUS)
    add = result.add_argument
    add(
        "--model",
        default="x152",
        type=lambda name: canonical_name(at_home(name)),
        help=f"{', '.join(MODEL_NAMES)}, or the path of a VMB yaml (%(default)s)",
    )
    add(
        "--weights",
        type=at_home,
        help="path or URL of a VMB or of a converted checkpoint (the released ones)",
    )
    add(
        "--images",
        required=True,
        metavar="DIR",
        type=at_home,
        help="folder of images, or one image",
    )
    add(
        "--count",
        type=lambda text: at_least_one("count", text),
        metavar="N",
        help="N images: those given over and over (each once)",
    )
    add(
        "--batch-sizes",
        default="1",
        type=lambda text: [at_least_one("batch_sizes", size) for size in text.split(",")],
        metavar="N,...",
        help="images at a time (%(default)s)",
    )
    add(
        "--precision",
        default=EXACT,
        type=lambda text: chosen("precision", text, PRECISIONS),
        metavar="NAME,...",
        help=f"of the network: {', '.join(PRECISIONS)} (%(default)s)",
    )
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N (%(default)s)")
    add(
        "--repeats",
        default="3",
        type=lambda text: at_least_one("repeats", text),
        metavar="N",
        help="of each figure (%(default)s)",
    )
    add(
        "--skip",
        default="",
        type=lambda text: chosen("skip", text, PARTS),
        metavar="PART,...",
        help=f"leave out: {', '.join(PARTS)}",
    )
    add("--format", default="mmf", help="of the output (%(default)s)")
    add("--cache-dir", metavar="DIR", type=at_home, help="see cache_dir of tools/extract.py")
    add("--json", metavar="FILE", type=at_home, help="also write JSON")
    return result


def main(args: argparse.Namespace) -> int:
    """Measure, and print or write what was found. Returns the exit status."""
    model, device = args.model, device_of(args.device)
    describe_model(model)  # an error comes before anything is measured
    weights = args.weights or RELEASED_WEIGHTS.get(args.model)
    if weights is None:
        released = ", ".join(RELEASED_WEIGHTS)
        raise ConfigError(f"`weights` is missing: only {released} have released ones")
    root, paths = root_of(args.images), list_images(args.images)
    if args.weights is None:  # what can take a download comes last
        model = released_model(args.model, args.cache_dir)
    plan = Plan(
        repeated(name_images(paths, "relative_with_extension", root), args.count),
        args.precision,
        list(dict.fromkeys(args.batch_sizes)),
        args.repeats,
        [part for part in PARTS if part not in args.skip],
        format_named(args.format).name,
    )
    if device.type == "cpu":  # as tools/extract.py does
        keep_freed_memory()
    for name in ("vmb_d2.engine", "vmb_d2.utils.progress"):  # their lines of each run
        logging.getLogger(name).setLevel(logging.WARNING)

    def load(precision: str, layer_by_layer: bool) -> RegionFeatureExtractor:
        options = {
            "device": device,
            "cache_dir": args.cache_dir,
            "precision": precision,
            "layer_by_layer": layer_by_layer,
        }
        return RegionFeatureExtractor.from_pretrained(model, weights=weights, **options)

    found = {"model": args.model, "weights": weights, **measure(plan, load, device)}
    print(table(found), end="")
    if args.json:
        with output_errors(args.json, "can't be written"):
            write_whole(args.json, json.dumps(found, indent=2, allow_nan=False).encode() + b"\n")
    return 0


def repeated(images: Sequence[InputImage], count: int | None) -> list[InputImage]:
    """``count`` images: those given over and over, each time under another name."""
    if count is None:
        return list(images)
    rounds = (divmod(i, len(images)) for i in range(count))
    return [InputImage(images[i].path, f"{images[i].name}_{r}") for r, i in rounds]


def chosen(field: str, text: str, valid: Sequence[str]) -> list[str]:
    """The names in a list separated by commas, each once. Raises ConfigError."""
    names = list(dict.fromkeys(name for name in text.split(",") if name))
    for name in names:
        if name not in valid:
            raise ConfigError(field=field, value=name, valid=valid)
    return names


def at_least_one(field: str, text: str) -> int:
    """The whole number in ``text``. Raises ConfigError."""
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError("has to be a whole number, at least 1", field=field, value=text)
    return int(text)


if __name__ == "__main__":
    sys.exit(run(parser(), main, log=sys.stderr, names=OPTIONS))
