"""Draw stored regions on their images.

    python tools/visualize.py features photos --output drawn

Each image becomes a PNG with its boxes, their classes and confidences; all of them together
become one page, index.html, which any browser shows offline. docs/visualizing.md says more.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import sys
from collections.abc import Iterable
from pathlib import Path

from vmb_d2.errors import ConfigError, InputError
from vmb_d2.output.manifest import recorded_names
from vmb_d2.output.open_stores import open_reader
from vmb_d2.stores import FORMATS, FeatureReader
from vmb_d2.stores.base import output_errors
from vmb_d2.structures.class_names import CLASSES_URL, NONE, class_names_or_numbers
from vmb_d2.utils.command_line import at_home, command_line, run
from vmb_d2.utils.downloads import cache_folder
from vmb_d2.visualization import Counts, ImageFiles, Visualization, open_page

EXIT_STATUS = (
    "Exit status: 0; 1 if an image is missing or can't be drawn (the others are); 2 if the work "
    "could not be done, with one line that says why."
)
PAGE = "index.html"

logger = logging.getLogger("visualize")


def names_to_draw(
    args: argparse.Namespace, reader: FeatureReader, images: ImageFiles
) -> Iterable[str]:
    """The names asked for; else that of the single image; else those of the whole store.

    Raises InputError where the single image isn't in the store.
    """
    if args.names:
        return dict.fromkeys(args.names)
    if not images.is_single:
        return reader.names()
    stored = [name for name in images.names() if name in reader]
    if not stored:
        raise InputError(f"{args.features}: has none of {', '.join(images.names())}")
    return stored[:1]


def visualize(args: argparse.Namespace) -> Counts:
    """Raises ConfigError, InputError, StoreError, DownloadError or OutputError where the work can't
    be done."""
    if not (args.png or args.html):
        raise ConfigError("--no-png and --no-html leave nothing to do")
    images = ImageFiles(args.images)
    with contextlib.ExitStack() as stack:
        reader = stack.enter_context(open_reader(args.features, args.format))
        names = names_to_draw(args, reader, images)
        classes, attributes = args.classes, args.attribute_names
        if classes is None:
            classes, recorded = recorded_names(args.features).values()
            attributes = attributes or recorded
            if classes == NONE:
                logger.warning("classes go by number: the manifest has no file of their names")
        visualization = Visualization(
            reader,
            images,
            class_names_or_numbers(
                classes, cache_folder(args.cache_dir), args.background, attributes
            ),
            min_confidence=args.min_confidence,
            top=args.top,
            limit=0 if args.names else args.limit,
        )
        output = Path(args.output)
        with output_errors(output, "can't be made"):
            output.mkdir(parents=True, exist_ok=True)
        page = None
        if args.html:
            title = f"Regions of {Path(args.features).resolve().name}"
            page = stack.enter_context(open_page(output / PAGE, title, args.min_confidence))
        return visualization.run(names, output if args.png else None, page)


def main(args: argparse.Namespace) -> int:
    """Returns the exit status."""
    logging.getLogger("iopath").setLevel(logging.CRITICAL)  # what fails is said by the error
    counts = visualize(args)
    if counts.cut:
        logger.info("stopped after %d images: --limit %d", counts.drawn, args.limit)
    written = " and ".join(["PNGs"] * args.png + [PAGE] * args.html)
    logger.info(
        "%s: %s of %d images; %d missing, %d failed",
        *(args.output, written, counts.drawn, counts.missing, counts.failed),
    )
    return 1 if counts.missing or counts.failed else 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    options = command_line(__doc__, EXIT_STATUS)
    add = options.add_argument
    add("features", metavar="FEATURES", type=at_home, help="a store, or an output folder with one")
    add("images", metavar="IMAGES", type=at_home, help="the folder of the images, or one image")
    add("--output", metavar="DIR", required=True, type=at_home, help="where the drawings go")
    add("--format", choices=FORMATS, help="of FEATURES, where it has stores of several")
    add(
        "--classes",
        metavar="FILE",
        type=at_home,
        help="class names: file, URL or none; default: that of the manifest, of VMB's models "
        f"{CLASSES_URL}",
    )
    add(
        "--attribute-names",
        metavar="FILE",
        type=at_home,
        help="file or URL; default: those of a label map, or of the manifest, else none are shown",
    )
    add(
        "--background",
        action="store_true",
        help="the background was extracted, as class 0; needed only without probabilities",
    )
    add("--min-confidence", metavar="P", type=float, default=0.2, help="default: %(default)s")
    add("--top", metavar="N", type=int, default=36, help="boxes an image; default: %(default)s")
    add("--limit", metavar="N", type=int, default=50, help="images; 0: all; default: %(default)s")
    add("--names", metavar="NAME", nargs="+", help="only these images, and all of them")
    add("--cache-dir", metavar="DIR", type=at_home, help="for the class names' file")
    add("--no-png", dest="png", action="store_false", help="only the page")
    add("--no-html", dest="html", action="store_false", help="only the PNGs")
    return options


def program() -> int:
    """The console command. Returns the exit status."""
    return run(parser(), main, names={"input_dir": "IMAGES"})


if __name__ == "__main__":
    sys.exit(program())
