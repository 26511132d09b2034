"""Measure how fast the extraction is: the network, each stage, end to end, and the original's loop.

    python tools/benchmark.py --model x152 --images photos --batch-sizes 1,2,4

All of it in one process, in turns. docs/performance.md explains the figures.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarking import (
    PARTS,
    Plan,
    Runs,
    json_text,
    measure,
    png_chart,
    repeated,
    stand_in_extractor,
    start_up,
    table,
    temporary_folder,
    write_random_weights,
)

from vmb_d2.checkpoint.released import released_model
from vmb_d2.config import MODEL_NAMES, RELEASED_WEIGHTS, VMBModel, canonical_name, describe_model
from vmb_d2.data.image_list import list_images, name_images, root_of
from vmb_d2.errors import ConfigError, InputError, OutputError
from vmb_d2.extractor import RegionFeatureExtractor
from vmb_d2.stores.formats import format_named
from vmb_d2.structures.input_image import InputImage
from vmb_d2.utils.command_line import at_home, command_line, run
from vmb_d2.utils.devices import PRECISIONS, device_of, keep_freed_memory
from vmb_d2.utils.files import write_whole

EXIT_STATUS = (
    "Exit status: 0 if everything was measured; 2 if not, with one line that says why; 130 after "
    "Ctrl-C."
)
RANDOM = "random"
NETWORKS = ("stand-in", "model")


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
        help="path or URL of a VMB or of a converted checkpoint; random: made up; without it, the "
        "released ones",
    )
    add(
        "--images",
        required=True,
        metavar="DIR",
        type=at_home,
        help="folder of images, or one image",
    )
    add("--count", type=int, metavar="N", help="N images: those given over and over (each once)")
    add("--batch-sizes", default="1", metavar="N,...", help="images at a time (%(default)s)")
    add(
        "--precision",
        default="fp32",
        metavar="NAME,...",
        help=f"of the network: {', '.join(PRECISIONS)} (%(default)s)",
    )
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N (%(default)s)")
    add("--repeats", type=int, default=3, metavar="N", help="of each figure (%(default)s)")
    add("--skip", default="", metavar="PART,...", help=f"leave out: {', '.join(PARTS)}")
    add("--format", default="mmf", help="that is written, see output.format (%(default)s)")
    add("--startup", action="store_true", help="also time tools/extract.py as a process")
    add("--endurance", type=int, metavar="N", help="also watch the memory over N images")
    add(
        "--endurance-network",
        default=NETWORKS[0],
        help=f"{' or '.join(NETWORKS)}: what runs over them (%(default)s)",
    )
    add(
        "--temporary",
        metavar="DIR",
        type=at_home,
        help="where to write features, which are removed again",
    )
    add("--cache-dir", metavar="DIR", type=at_home, help="see cache_dir of tools/extract.py")
    add("--json", metavar="FILE", type=at_home, help="also write JSON; - prints it, and no table")
    add("--chart", metavar="FILE", type=at_home, help="also draw a PNG")
    return result


def main(args: argparse.Namespace) -> int:
    """Measure, and print or write what was found. Returns the exit status."""
    description, device = describe_model(args.model), device_of(args.device)
    parts = [part for part in PARTS if part not in chosen(args.skip, "--skip", PARTS)]
    images = input_images(args.images)
    plan = Plan(
        images if args.count is None else repeated(images, at_least_one(args.count, "--count")),
        chosen(args.precision, "--precision", PRECISIONS),
        sizes(args.batch_sizes),
        args.repeats,
        parts,
        format_named(args.format).name,
    )
    if args.endurance is not None:
        at_least_one(args.endurance, "--endurance")
        chosen(args.endurance_network, "--endurance-network", NETWORKS)
    if device.type == "cpu":  # as tools/extract.py does
        keep_freed_memory()
    if args.weights is None and args.model in RELEASED_WEIGHTS:
        description = released_model(args.model, args.cache_dir)
    with temporary_folder(args.temporary) as folder:
        weights = Weights(args, description, folder)

        def load(precision: str) -> RegionFeatureExtractor:
            return RegionFeatureExtractor.from_pretrained(
                description,
                weights=weights.path(),
                device=device,
                cache_dir=args.cache_dir,
                precision=precision,
            )

        found = measure(plan, load, device, folder, show)
        if args.startup:
            command = extract_command(args, weights, str(device), images[0])
            found["start_up"] = start_up(command, folder / "start_up", args.repeats, show)
        if args.endurance is not None:
            show(f"memory over {args.endurance} images")
            model = args.endurance_network == "model"
            extractor = load(plan.precisions[0]) if model else stand_in_extractor(description)
            many = repeated(images, args.endurance)
            runs = Runs(args.format, plan.batch_sizes[0])
            found["endurance"] = {
                "network": args.model if model else "a stand-in for the network",
                **runs.endurance(extractor, many, folder / "endurance"),
            }
    give({"model": args.model, "weights": weights.name, **found}, args)
    return 0


class Weights:
    """The weights asked for; random ones are made where they are needed first."""

    def __init__(self, args: argparse.Namespace, description: VMBModel, folder: Path):
        self._given = args.weights or RELEASED_WEIGHTS.get(args.model)
        if self._given is None:
            raise ConfigError(
                f"--weights is missing: a path, a URL, or {RANDOM} "
                f"(only {' and '.join(RELEASED_WEIGHTS)} have released ones)"
            )
        self._description = description
        self._made = folder / "random.pth"
        self.name = self._given

    def path(self) -> str:
        if self._given != RANDOM:
            return self._given
        if not self._made.exists():
            write_random_weights(self._description, self._made)
        return str(self._made)


def extract_command(
    args: argparse.Namespace, weights: Weights, device: str, image: InputImage
) -> Callable[[Path], Sequence[str]]:
    """The command that extracts one image into a folder."""
    named = args.model in MODEL_NAMES
    options = {
        "model": args.model if named else "vmb",
        **({} if named else {"model.config_file": args.model}),
        "model.weights": weights.path(),
        "device": device,
        **({"cache_dir": args.cache_dir} if args.cache_dir else {}),
        "input.dir": image.path,
        "output.format": args.format,
    }
    program = [sys.executable, str(Path(__file__).with_name("extract.py"))]

    def command(folder: Path) -> list[str]:
        values = {**options, "output.dir": folder}
        return program + [f"{key}={quoted(str(value))}" for key, value in values.items()]

    return command


def quoted(value: str) -> str:
    """A value as Hydra takes it, whatever is in it."""
    return "'" + value.replace("'", "\\'") + "'"


def input_images(source: str) -> list[InputImage]:
    """The images directly in a folder, or the one that ``source`` is. Raises InputError."""
    try:
        paths = list_images(source)
    except InputError as error:
        text = str(error).partition(" (")[0]  # what is in brackets is of another program's options
        raise InputError(text.replace("input.dir=", "--images=")) from error
    return name_images(paths, "relative_with_extension", root_of(source))


def chosen(text: str, option: str, valid: Sequence[str]) -> list[str]:
    """The names in a list with commas between. Raises ConfigError for one that isn't valid."""
    names = [name for name in text.split(",") if name]
    for name in names:
        if name not in valid:
            raise ConfigError(f"{option}={name}: valid are {', '.join(valid)}")
    return names


def sizes(text: str) -> list[int]:
    try:
        return [int(size) for size in text.split(",")]
    except ValueError:
        raise ConfigError(f"--batch-sizes={text}: numbers with commas between, as 1,2,4") from None


def at_least_one(number: int, option: str) -> int:
    if number < 1:
        raise ConfigError(f"{option}={number}: has to be at least 1")
    return number


def show(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def give(content: dict, args: argparse.Namespace) -> None:
    """Print and write what was found. Raises OutputError."""
    print(json_text(content) if args.json == "-" else table(content), end="")
    files = {args.chart: png_chart(content) if args.chart else b""}
    if args.json != "-":
        files[args.json] = json_text(content).encode()
    for path, data in files.items():
        if path:
            try:
                write_whole(path, data)
            except OSError as error:
                raise OutputError(f"{path}: can't be written: {error.strerror}") from error


if __name__ == "__main__":
    sys.exit(run(parser(), main, log=sys.stderr))
