"""Convert a checkpoint of VMB, VinVL, frcnn_vg or bua to Detectron2's layout.

    python -m weights_conversion.convert detectron_model_x152.pth x152.pth --model x152

The output loads with detectron2's DetectionCheckpointer into the model that
`vmb_d2.get_cfg("x152")` describes.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

try:
    from vmb_d2 import __version__
    from vmb_d2.config import (
        MODEL_NAMES,
        VMBModel,
        canonical_name,
        named_model,
        read_vmb_model,
    )
    from vmb_d2.errors import CheckpointError, ConfigError
    from vmb_d2.utils.command_line import DONE, at_home, command_line, run
    from vmb_d2.utils.text import listed
except ModuleNotFoundError as error:
    if __name__ != "__main__":
        raise
    text = f"error: {sys.executable} has no {error.name}: `make install` installs it"
    print(text, file=sys.stderr)
    sys.exit(2)

from . import checkpoint_file, state_dict

logger = logging.getLogger(__name__)

MOST_LISTED = 5  # problems in an error, and keys in a log line


def convert_checkpoint(
    source: str | Path, target: str | Path, model: VMBModel, unsafe: bool = False
) -> state_dict.Audit:
    """Convert the original checkpoint ``source`` to the Detectron2 checkpoint ``target``.

    The target is written completely or not at all. It contains ``model``, the state dict; and
    ``vmb_d2``: the source's name and SHA-256, the converter's version, the model's description, and
    the background's rows that Detectron2 doesn't have. ``torch.load(..., weights_only=True)``
    reads it.

    Raises:
        CheckpointError: the source can't be read, or a key doesn't fit; the target can't be
            written.
    """
    checkpoint, state, model, audited = _audit_file(source, model, unsafe)
    _raise_problems(source, audited)
    converted, dropped = state_dict.to_d2(state, audited)
    origin = {
        "source_name": Path(source).name,
        "source_sha256": checkpoint_file.sha256(source),
        "source_config": model.to_dict(),
        "converter_version": __version__,
        "dropped": dropped,
    }
    target_content = {
        "model": converted,
        "__author__": "VMB-D2",
        checkpoint_file.ORIGIN_KEY: origin,
    }
    checkpoint_file.write_checkpoint(target_content, target)
    for line in _remarks(checkpoint, audited):
        logger.info("%s", line)
    return audited


def revert_checkpoint(source: str | Path, target: str | Path, unsafe: bool = False) -> None:
    """Write a converted checkpoint in its original's layout again, as ``{"model": state_dict}``.

    Keys that the conversion ignored, such as twins, are not written. Two-way objectness is that of
    the original up to rounding.

    Raises:
        CheckpointError: the source can't be read, or was not written by :func:`convert_checkpoint`;
            the target can't be written.
    """
    checkpoint = checkpoint_file.read_checkpoint(source, unsafe)
    if checkpoint_file.ORIGIN_KEY not in checkpoint:
        raise CheckpointError(f"{source}: was not written by this converter")
    origin = checkpoint[checkpoint_file.ORIGIN_KEY]
    model = VMBModel.from_dict(origin["source_config"])
    state = checkpoint_file.state_dict_of(checkpoint, source)
    checkpoint_file.check_content(state, source)
    reverted = state_dict.to_vmb(state, model, origin["dropped"])
    checkpoint_file.write_checkpoint({"model": reverted}, target)


def _audit_file(source, model, unsafe):
    checkpoint = checkpoint_file.read_checkpoint(source, unsafe)
    state = checkpoint_file.state_dict_of(checkpoint, source)
    if checkpoint_file.is_converted(checkpoint, model):
        raise CheckpointError(f"{source}: is converted already, or of another model")
    checkpoint_file.check_content(state, source)
    model = state_dict.without_missing_head(state, model)
    return checkpoint, state, model, state_dict.audit(state, model)


def _raise_problems(source, audited: state_dict.Audit) -> None:
    if problems := audited.problems:
        hidden = len(problems) > MOST_LISTED
        rest = ", which weights_conversion.convert lists with `dry_run`" if hidden else ""
        raise CheckpointError(
            f"{source}: doesn't fit the model: {listed(problems, MOST_LISTED)}{rest}"
        )


def _remarks(checkpoint, audited: state_dict.Audit, most: int | None = MOST_LISTED) -> list[str]:
    """A line for each reason why keys were not converted, and for assumed values.

    A line names at most ``most`` keys; None: all.
    """
    wrapper = checkpoint_file.wrapper_of(checkpoint)
    beside = [str(k) for k in checkpoint if k != wrapper] if wrapper else []
    keys_of: dict[str, list[str]] = {"not part of the model": beside} if beside else {}
    for key, reason in audited.ignored.items():
        keys_of.setdefault(reason, []).append(key)
    lines = [f"ignored ({reason}): {listed(keys, most)}" for reason, keys in keys_of.items()]
    if audited.assumed:
        values = " and ".join(f"{leaf} {value:g}" for leaf, value in state_dict.ASSUMED.items())
        lines.append(f"the file has no statistics of batch norms: {values} in all of them")
    return lines


def _print_table(checkpoint, audited: state_dict.Audit) -> None:
    for p in audited.parameters:
        key = audited.sources.get(p.vmb, "(none)")
        names = [p.vmb, p.d2] if key == p.vmb else [key, p.vmb, p.d2]
        note = "" if p.layout.value == "same" else f"  ({p.layout.value})"
        print("  ->  ".join(names) + note)
    for line in [*_remarks(checkpoint, audited, most=None), *audited.problems]:
        print(line)


def _parser() -> argparse.ArgumentParser:
    parser = command_line(__doc__, "Exit status: 0; 2 if it could not be done.")
    parser.add_argument("source", metavar="IN.pth", type=at_home, help="the checkpoint to read")
    parser.add_argument(
        "target", metavar="OUT.pth", nargs="?", type=at_home, help="the checkpoint to write"
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--model",
        choices=MODEL_NAMES,
        type=canonical_name,
        help="the model that IN.pth is of",
    )
    which.add_argument(
        "--config", metavar="YAML", type=at_home, help="the original's yaml of any other model"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print what would become of each key; write nothing"
    )
    parser.add_argument(
        "--reverse",
        action="store_true",
        help="from a converted checkpoint back to its original's layout, without what was ignored "
        "(parameters that the original has twice are written once)",
    )
    parser.add_argument(
        "--unsafe-load",
        action="store_true",
        help="also load pickled objects, which can run any code: only for files that you trust",
    )
    return parser


def _convert(args: argparse.Namespace) -> int:
    if args.target is None and not args.dry_run:
        raise ConfigError("OUT.pth is missing: only `dry_run` goes without")
    if args.reverse and (args.dry_run or args.model or args.config):
        raise ConfigError("`reverse` reads the model from the checkpoint: it takes no other option")
    if args.reverse:
        revert_checkpoint(args.source, args.target, args.unsafe_load)
        return DONE
    if not (args.model or args.config):
        raise ConfigError("`model` or `config` is missing: of what model IN.pth is")
    model = read_vmb_model(args.config) if args.config else named_model(args.model)
    if args.dry_run:
        checkpoint, _, _, audited = _audit_file(args.source, model, args.unsafe_load)
        _print_table(checkpoint, audited)
        _raise_problems(args.source, audited)
        return DONE
    audited = convert_checkpoint(args.source, args.target, model, args.unsafe_load)
    logger.info("%s: %d parameters converted", args.target, len(audited.parameters))
    return DONE


def main(argv: list[str] | None = None) -> int:
    """The command line. Returns the exit status: 0, or 2 with one line on stderr."""
    return run(_parser(), _convert, arguments=argv)


if __name__ == "__main__":
    sys.exit(main())
