"""How tools/extract.py runs and ends: alone, as a sweep that starts jobs, and as one of these jobs.

A sweep is Hydra's multirun. What a job returns stays in Hydra; tools/status.py tells how far each
shard is.
"""

from __future__ import annotations

import _thread
import contextlib
import functools
import logging
import os
import shlex
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import arguments
from extract_options import option_names
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)

from vmb_d2.errors import ConfigError, OutputError, VMBError, first_line
from vmb_d2.utils import command_line, interruption

SLURM, LOCAL = "hydra/launcher=slurm", "hydra/launcher=local_gpus"
VISIBLE, REMEMBERED = "CUDA_VISIBLE_DEVICES", "VMB_D2_VISIBLE_DEVICES"
ALL_GPUS = "all"

logger = logging.getLogger("extract")


class SomeImagesFailed(VMBError):
    """The run went to its end, but not every image was extracted."""

    exit_status = command_line.INCOMPLETE


class SweepFolder(Callback):
    """Notes the output folder of a sweep whose jobs have all ended; conf/extract.yaml names it."""

    found: str | None = None

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        SweepFolder.found = config.output.dir


def in_sweep() -> bool:
    """Whether this is one of a multirun's jobs."""
    return HydraConfig.get().mode is RunMode.MULTIRUN


def command() -> dict[str, Any]:
    """How this job was asked for, as plain values."""
    overrides = HydraConfig.get().overrides
    hydra = [o for o in overrides.hydra if not o.startswith("hydra.mode=")]
    return {"overrides": list(overrides.task), "hydra": hydra, "folder": os.getcwd()}


def task(function: Callable[[DictConfig], None]) -> Callable[[DictConfig], None]:
    """Decorator of a Hydra app's function, under ``hydra.main``.

    In a sweep an error goes to the job's log, too, and failed images are no error, since Hydra
    would start no further job after one.
    """

    @functools.wraps(function)
    def wrapper(cfg: DictConfig) -> None:
        if not in_sweep():  # an error that Hydra sees, it logs
            sys.exit(command_line.exit_status(lambda: function(cfg) or command_line.DONE, one_line))
        try:
            with interruption.handled():
                signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
                take_gpu(HydraConfig.get().job.num)
                function(cfg)
        except SomeImagesFailed as error:
            logger.error("%s", error)
        except Exception as error:
            text = one_line(error)
            logger.error("this job of the sweep failed: %s", text or error, exc_info=text is None)
            raise

    return wrapper


def run(main: Callable[[], None]) -> int:
    """Run what ``hydra.main`` made. Returns the exit status."""
    goes_on = "jobs on the cluster go on: squeue lists them, scancel ends them"
    again = "run the same command to go on"
    interrupted = goes_on if SLURM in sys.argv[1:] else again
    return command_line.exit_status(lambda: _launch(main), one_line, interrupted)


def _launch(main: Callable[[], None]) -> int:
    """Returns the exit status; raises what ends the run or the sweep."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises its errors instead of printing them
    # A launcher's jobs import the modules in this folder too.
    paths = [os.path.dirname(os.path.abspath(__file__)), os.environ.get("PYTHONPATH")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    # Submitit hides the GPUs from its jobs on this machine: take_gpu needs to know them.
    os.environ.setdefault(REMEMBERED, os.environ.get(VISIBLE, ALL_GPUS))
    if SLURM in sys.argv[1:] and not shutil.which("srun"):
        raise ConfigError(
            f"{SLURM}: this machine is in no Slurm cluster: there is no srun on the PATH. On one "
            "machine with several GPUs take hydra/launcher=local_gpus"
        )
    if LOCAL in sys.argv[1:]:
        _keep_ctrl_c_from_controllers()
    sys.argv[1:] = arguments.for_hydra(sys.argv[1:])
    try:
        with interruption.handled():
            main()
    except BaseException as error:
        if "submitit" in sys.modules:
            _end_local_jobs(isinstance(error, KeyboardInterrupt))
        raise
    return _exit_status(SweepFolder.found)


def _exit_status(folder: str | None) -> int:
    """That of a run, or of a sweep into ``folder``. Raises SomeImagesFailed."""
    failed = 0
    if folder is not None:
        from vmb_d2.status import read_status

        # Where output.dir is swept over, this is another folder, with no run in it.
        with contextlib.suppress(OutputError):
            failed = read_status(folder).total("failed")
    if failed:
        is_script = sys.argv[0].endswith(".py")
        program = "python tools/status.py" if is_script else "vmb-d2-status"
        status = f"{program} {shlex.quote(str(folder))}"
        raise SomeImagesFailed(f"{failed} images failed: {status} lists them")
    return command_line.DONE


def _keep_ctrl_c_from_controllers() -> None:
    """Let Ctrl-C reach the jobs on this machine, not submitit's processes between.

    These would kill their jobs a second later. A signal that is blocked here is blocked in all
    processes that are started; the jobs unblock it.
    """

    def pass_on() -> None:
        signal.sigwait({signal.SIGINT})
        _thread.interrupt_main()

    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    threading.Thread(target=pass_on, daemon=True).start()


def _end_local_jobs(at_once: bool) -> None:
    """Wait for the jobs on this machine, after a signal to each if they are to end ``at_once``."""
    controllers = _children(os.getpid())
    for controller in controllers if at_once else []:
        for job in _children(controller):
            os.kill(job, signal.SIGINT)
        os.kill(controller, signal.SIGTERM)  # it may be about to start its job
    for controller in controllers:
        os.waitpid(controller, 0)


def _children(pid: int) -> list[int]:
    try:
        return [
            int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        ]
    except OSError:
        return []


def take_gpu(number: int) -> None:
    """In a job on this machine, and before anything uses a GPU: leave one of them visible.

    Args:
        number: the job's in the sweep. Jobs take the GPUs in turn.
    """
    if os.environ.get("SUBMITIT_EXECUTOR") != "local":
        return
    remembered = os.environ.get(REMEMBERED, ALL_GPUS)
    if remembered == ALL_GPUS:
        import torch

        os.environ.pop(VISIBLE, None)
        gpus = [str(i) for i in range(torch.cuda.device_count())]
        if not gpus:
            return  # device=auto says why, where there should be some
    else:
        gpus = [gpu.strip() for gpu in remembered.split(",") if gpu.strip()]
    os.environ[VISIBLE] = gpus[number % len(gpus)] if gpus else ""


def one_line(error: BaseException) -> str | None:
    """The text of an error that the user can mend, with the key it is about; None for others."""
    if isinstance(error, VMBError):
        return error.text(option_names())
    for cause in (error, error.__cause__, error.__context__):
        if isinstance(cause, MissingConfigException) and cause.options:
            group, _, choice = str(cause.missing_cfg_file).rpartition("/")
            return f"{group}={choice}: valid are {', '.join(cause.options)}"
        key = getattr(cause, "full_key", None)
        if key and isinstance(cause, MissingMandatoryValue):
            return f"{key} is missing"
        if key and isinstance(cause, (ConfigKeyError, ConfigAttributeError)):
            valid = ", ".join(str(k) for k in cause.parent_node or () if k != "hydra")
            return f"{key}: no such key; valid here are {valid}"
        if key:
            return f"{key}: {first_line(cause)}"
    if isinstance(error, OverrideParseException):
        key, equals, value = error.override.partition("=")
        if not equals:
            return f"{key}: an option is key=value; the shell needs quotes around spaces"
        quoted = shlex.quote(arguments.option(key, value))
        return f"{error.override}: a value with special characters needs quotes: type {quoted}"
    is_submitits = type(error).__module__.startswith("submitit.")
    if is_submitits or isinstance(error, (HydraException, OmegaConfBaseException)):
        return "; ".join(line for line in str(error).splitlines() if line)[:1000]
    return None
