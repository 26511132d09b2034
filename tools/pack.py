"""Pack the images of feature stores of any format into one store of any other.

    python tools/pack.py features --to lmdb --output packed

A source is a store (a folder of files, an LMDB, a .tsv, a .h5) or an output folder with a store in
it, or with one of each shard, which also go into one in the same folder:

    python tools/pack.py features --to lmdb --output features

The target is made, or added to, in the output folder; what it has already is passed over. So run
the same command again to go on after an interruption.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from vmb_d2.errors import ConfigError
from vmb_d2.packing.job import pack
from vmb_d2.packing.sources import DUPLICATES, common_names
from vmb_d2.stores import FEATURE_DTYPES, FORMATS
from vmb_d2.structures.class_names import (
    CLASSES_URL,
    NO_NAMES,
    NONE,
    ClassNames,
    read_class_names,
)
from vmb_d2.utils.command_line import at_home, command_line, run
from vmb_d2.utils.downloads import cache_folder
from vmb_d2.utils.interruption import handled

EXIT_STATUS = (
    "Exit status: 0; 1 if an image could not be read (each is reported, the others go on; those "
    "left out by --skip don't count); 2 if the work could not be done, with one line that says "
    "why; 130 after Ctrl-C."
)

CLIP_BOXES = {"true": True, "false": False}

logger = logging.getLogger("pack")


def class_names(args: argparse.Namespace) -> ClassNames:
    """What the target needs of them. Raises ConfigError or DownloadError."""
    if not FORMATS[args.to].writer.needs_class_names:
        return NO_NAMES
    classes, attributes = args.class_names, args.attribute_names
    if classes is None:
        classes, recorded = common_names(args.sources).values()
        attributes = attributes or recorded
        if classes == NONE:
            raise ConfigError(
                "`class_names` is missing: the manifest has no file of the names of the model's "
                "classes; give one, or none for numbers"
            )
    return read_class_names(classes, cache_folder(), attribute_source=attributes)


def main(args: argparse.Namespace) -> int:
    """Returns the exit status."""
    logging.getLogger("iopath").setLevel(logging.CRITICAL)  # what fails is said by the error
    with handled():
        result = pack(
            args.sources,
            args.to,
            args.output,
            source_format=args.source_format,
            duplicates=args.duplicates,
            dtype=args.dtype,
            clip_boxes=CLIP_BOXES.get(args.clip_boxes),
            allow_mismatch=args.allow_mismatch,
            skip=args.skip,
            class_names=class_names(args),
        )
    logger.info(
        "%s: %d packed, %d there before, %d failed%s",
        Path(args.output) / FORMATS[args.to].place,
        result.packed,
        result.there_before,
        len(result.failures),
        f", {len(result.left_out)} left out" if result.left_out else "",
    )
    return 1 if result.failures else 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    options = command_line(__doc__, EXIT_STATUS)
    options.add_argument(
        "sources", metavar="SOURCE", nargs="+", type=at_home, help="a store or output folder"
    )
    options.add_argument("--to", choices=FORMATS, required=True, help="the format to write")
    options.add_argument(
        "--output", metavar="DIR", required=True, type=at_home, help="the output folder"
    )
    options.add_argument(
        "--from",
        dest="source_format",
        choices=FORMATS,
        help="the sources' format, where a folder has stores of several",
    )
    options.add_argument(
        "--dtype", choices=FEATURE_DTYPES, help="of the features; default: as in the sources"
    )
    options.add_argument(
        "--duplicates",
        choices=DUPLICATES,
        default=DUPLICATES[0],
        help="a name that is in two sources: an error (default), or take the first source's",
    )
    options.add_argument(
        "--clip-boxes",
        choices=CLIP_BOXES,
        help="to the image; default: as in what is there, else as the format has it",
    )
    options.add_argument(
        "--allow-mismatch",
        action="store_true",
        help="also pack sources that were made with different settings",
    )
    options.add_argument(
        "--skip", action="store_true", help="leave out, and name, images that the format can't hold"
    )
    options.add_argument(
        "--class-names",
        metavar="FILE",
        type=at_home,
        help="of the sources, for oscar: a file or URL, or none; default: that of their manifests, "
        f"of VMB's models {CLASSES_URL}",
    )
    options.add_argument(
        "--attribute-names",
        metavar="FILE",
        type=at_home,
        help="of the sources, for oscar: a file or URL; default: those of a label map, or of the "
        "manifests",
    )
    return options


def program() -> int:
    """The console command. Returns the exit status."""
    return run(parser(), main)


if __name__ == "__main__":
    sys.exit(program())
