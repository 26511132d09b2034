"""MMF's command line for its features: the flags of its extract_features_vmb.py.

    python tools/extract_features_vmb.py --model_name=X-152 --image_dir=photos --output_folder=out

It prints the command of tools/extract.py that does the same, in the original's batches, and runs
it. docs/mmf.md says what differs from MMF's script.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys

from arguments import option
from extract_options import option_names

from vmb_d2.config import ALIASES
from vmb_d2.data.image_list import is_image_list
from vmb_d2.errors import ConfigError
from vmb_d2.utils.command_line import at_home, command_line, run

EXIT_STATUS = "Exit status: as of tools/extract.py, see docs/running.md."
DEFAULT_LIST = "./list"  # taken if it is there, as by MMF
SAME_NAMES = (
    *("start_index", "end_index", "num_features", "feature_name"),
    *("confidence_threshold", "background"),
)


def model_options(args: argparse.Namespace) -> list[str]:
    """Raises ConfigError for an unknown model, unless a file is given in its place."""
    own = {"model.weights": args.model_file, "model.config_file": args.config_file}
    given = [option(key, at_home(path)) for key, path in own.items() if path]
    if len(given) == 2:
        return ["model=vmb", *given]
    if args.model_name not in ALIASES:
        raise ConfigError(field="model_name", value=args.model_name, valid=ALIASES)
    return [f"model={ALIASES[args.model_name]}", *given]


def options(args: argparse.Namespace) -> list[str]:
    """Those of tools/extract.py that do the same. Raises ConfigError."""
    source = at_home(args.image_dir)
    found = [
        *model_options(args),
        option("input.list" if is_image_list(source) else "input.dir", source),
        option("output.dir", at_home(args.output_folder)),
        "extract.batching=mmf",
        f"extract.batch_size={args.batch_size}",
    ]
    if args.exclude_list != DEFAULT_LIST or os.path.isfile(DEFAULT_LIST):
        found.append(option("input.exclude_list", at_home(args.exclude_list)))
    for name in SAME_NAMES:
        value = getattr(args, name)
        if value != parser().get_default(name):
            key = option_names()[name]
            found.append(option(key, value) if isinstance(value, str) else f"{key}={value}")
    return found


def main(args: argparse.Namespace) -> int:
    """Goes on as tools/extract.py."""
    program = os.path.join(os.path.dirname(sys.argv[0]), "extract.py")
    command = [program, *options(args)]
    print(shlex.join(["python", *command]), flush=True)
    os.execv(sys.executable, [sys.executable, *command])


def parser() -> argparse.ArgumentParser:
    """The command line, with MMF's defaults."""
    result = command_line(__doc__, EXIT_STATUS)
    add = result.add_argument
    add("--model_name", default="X-152", help=f"{' or '.join(ALIASES)} (%(default)s)")
    add("--model_file", metavar="PTH", help="other weights; with --config_file, of another model")
    add("--config_file", metavar="YAML", help="of the model in --model_file")
    add("--start_index", type=int, default=0, help="first of the sorted images (%(default)s)")
    add("--end_index", type=int, help="the one after the last")
    add("--batch_size", type=int, default=2, help="images at a time (%(default)s)")
    add("--num_features", type=int, default=100, help="regions an image (%(default)s)")
    add("--output_folder", default="./output", metavar="DIR", help="(%(default)s)")
    add("--image_dir", required=True, metavar="PATH", help="a folder, an image, or a list of paths")
    add("--feature_name", default="fc6", help="fc6 or fc7 (%(default)s)")
    add("--exclude_list", default=DEFAULT_LIST, metavar="FILE", help="if it is there (%(default)s)")
    add("--confidence_threshold", type=float, default=0, help="(%(default)s)")
    add("--background", action="store_true", help="the background takes part, as class 0")
    return result


if __name__ == "__main__":
    sys.exit(run(parser(), main))
