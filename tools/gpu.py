"""Measure all that only a GPU can tell, in ten minutes: `make gpu`.

    python tools/gpu.py --output results
    python tools/gpu.py --output results --report docs/gpu.md

Six steps, the most valuable first: parity, speed, precision, kernels, selection, tests. Their
results are written at once, a JSON file for each step; the same command goes on with what is
missing, and makes again what was an error. Weights are made on the spot. docs/performance.md says
more.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this tree, whatever is installed

from gpu_steps import STEPS, packages

from vmb_d2.errors import ConfigError
from vmb_d2.utils.command_line import DONE, INCOMPLETE, at_home, command_line, run

if TYPE_CHECKING:
    import torch
    from gpu_steps.steps import Step

ROOT = Path(__file__).resolve().parents[1]
logger = logging.getLogger(__name__)

EXIT_STATUS = (
    "Exit status: 0; 1 if a result is an error or other than it should be; 2 if nothing could be "
    "measured, with one line that says why; 130 after Ctrl-C."
)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = command_line(__doc__, EXIT_STATUS)
    add = result.add_argument
    add("--output", required=True, metavar="DIR", type=at_home, help="the results' folder")
    add(
        "--device",
        default="cuda",
        help="cuda or cuda:N; with cpu the same steps on small models (%(default)s)",
    )
    add(
        "--steps",
        default="",
        type=chosen,
        metavar="NAME,...",
        help=f"of {', '.join(STEPS)} (all)",
    )
    add(
        "--limit",
        default=600.0,
        type=float,
        metavar="SECONDS",
        help="after this no case is begun (%(default)s)",
    )
    add("--report", metavar="FILE.md", type=at_home, help="measure nothing; write the report")
    return result


def chosen(text: str) -> list[str]:
    """The steps of a list separated by commas, in their order. Raises ConfigError."""
    names = [name for name in text.split(",") if name] or STEPS
    for name in names:
        if name not in STEPS:
            raise ConfigError(field="steps", value=name, valid=STEPS)
    return [step for step in STEPS if step in names]


def main(args: argparse.Namespace) -> int:
    """Measure, or write the report. Returns the exit status."""
    folder = Path(args.output)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = f"can't be made: {error.strerror}"
        raise ConfigError(reason, field="output", value=folder) from error
    packages.add_wheels(ROOT / "wheels", folder.resolve() / "packages")
    if line := packages.missing([] if args.report else args.steps):
        raise ConfigError(line)
    if args.report:
        from gpu_steps.report import read_results, write_report

        write_report(read_results(folder), Path(args.report))
        return DONE
    return measure(folder, args.device, args.steps, args.limit)


def measure(folder: Path, device_name: str, names: list[str], limit: float) -> int:
    """Run steps by their names. Returns the exit status."""
    from benchmarking.machine import describe_machine
    from gpu_steps.goals import shortfalls
    from gpu_steps.report import read_results
    from gpu_steps.steps import run_steps

    from vmb_d2.utils.devices import device_of, keep_freed_memory

    device = device_of(device_name)
    on_cpu = device.type == "cpu"
    if on_cpu:  # as tools/extract.py does
        keep_freed_memory()
    for name in ("vmb_d2.engine", "vmb_d2.utils.progress", "benchmarking.measuring"):
        logging.getLogger(name).setLevel(logging.WARNING)  # the jobs that are measured
    steps = [step for step in all_steps(device) if step.name in names]
    good = run_steps(steps, folder, describe_machine(device), limit)
    results = {name: step["cases"] for name, step in read_results(folder).items()}
    for line in shortfalls({} if on_cpu else results):
        logger.info("%s", line)
    return DONE if good else INCOMPLETE


def all_steps(device: torch.device) -> list[Step]:
    """The steps: on the CPU of small models and few images."""
    from gpu_steps import speed
    from gpu_steps.device_tests import device_tests_step
    from gpu_steps.kernels import kernels_step
    from gpu_steps.networks import Networks
    from gpu_steps.parity import parity_step
    from gpu_steps.precisions import precision_step
    from gpu_steps.selection import selection_step

    from reference import models
    from vmb_d2.data.image_list import list_images, name_images

    on_cpu = device.type == "cpu"
    names = models.TINY if on_cpu else tuple(models.FULL)
    with_goldens = names if on_cpu else (*names, *models.TINY)
    with_batches = ("tiny_x152_fpn", "tiny_vinvl") if on_cpu else names
    counts = speed.Counts(4, 2, 2, 1, (1, 2)) if on_cpu else speed.Counts()
    networks, precisions = Networks(device), speed.available(device)
    images = name_images(list_images(ROOT / "demo"))
    return [
        parity_step(with_goldens, with_batches, networks),
        speed.Speed(networks, images, counts).step(names),
        precision_step(names, precisions, networks),
        kernels_step(names[0], precisions, networks),
        selection_step(device, repeats=2 if on_cpu else 20),
        device_tests_step(device),
    ]


if __name__ == "__main__":
    sys.exit(run(parser(), main))
