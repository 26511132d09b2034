"""What submitit's launchers lack: all jobs are awaited, and refusals and Ctrl-C are understood."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig

from vmb_d2.errors import ConfigError, VMBError
from vmb_d2.utils.interruption import Interrupted

SECONDS_TO_END = 3  # for jobs on this machine, which get a terminal's Ctrl-C too

logger = logging.getLogger("extract")


class JobLost(VMBError):
    """A job ended without a word, as one that was killed."""


class StillQueued(Interrupted):
    """A signal ends this process; its jobs on a cluster go on.

    Attributes:
        job: their number.
    """

    def __init__(self, signum: int, job: str):
        super().__init__(signum)
        self.job = job


def check(launcher: DictConfig) -> None:
    """Raise ConfigError for a launcher that would run a shard twice, or isn't at home here."""
    for key in ("nodes", "tasks_per_node"):
        if (launcher.get(key) or 1) > 1:
            raise ConfigError(
                f"hydra.launcher.{key}={launcher[key]}: has to be 1, as a shard is one task; "
                "for more GPUs take more shards: shard.count"
            )
    missing = [name for name in ("sbatch", "srun") if not shutil.which(name)]
    if launcher._target_.endswith("SlurmLauncher") and missing:
        raise ConfigError(
            f"this machine is in no Slurm cluster: there is no {' and no '.join(missing)} on the "
            "PATH. On one machine with several GPUs take hydra/launcher=local_gpus"
        )


@contextlib.contextmanager
def awaited() -> Iterator[None]:
    """Within the block, submitit's launchers wait for all their jobs, also where one is lost.

    A lost one counts as failed. On Ctrl-C, jobs on this machine end as well; a cluster's don't.

    Raises:
        ConfigError: the cluster takes no such jobs.
        StillQueued: Ctrl-C, or another signal, with jobs on a cluster.
    """
    import submitit
    from submitit.core.utils import FailedSubmissionError, JobPaths, UncompletedJobError

    submit = submitit.AutoExecutor.map_array
    jobs: list[submitit.Job] = []

    def map_array(executor: submitit.AutoExecutor, *arguments: Any) -> list[_Awaited]:
        folder = JobPaths.get_first_id_independent_folder(executor.folder)
        try:
            # It prints what it raises; and its helpers on this machine print at a Ctrl-C.
            with _stderr_in(folder / "launcher.log"):
                jobs.extend(submit(executor, *arguments))
        except (FailedSubmissionError, UncompletedJobError) as error:
            lines = [line.removeprefix("sbatch: error: ") for line in str(error).splitlines()]
            raise ConfigError(f"the cluster takes no such job: {'; '.join(lines)}") from error
        if on_cluster():
            logger.info("submitted as job %s; this process waits for its end", cluster_job())
        return [_Awaited(job) for job in jobs]

    def on_cluster() -> bool:
        return bool(jobs) and isinstance(jobs[0], submitit.SlurmJob)

    def cluster_job() -> str:
        return jobs[0].job_id.partition("_")[0]  # without the number in the array

    submitit.AutoExecutor.map_array = map_array
    try:
        yield
    except KeyboardInterrupt as error:
        signum = getattr(error, "signum", signal.SIGINT)
        if on_cluster():
            raise StillQueued(signum, cluster_job()) from error
        _end(jobs, SECONDS_TO_END if signum == signal.SIGINT else 0)
        raise
    finally:
        submitit.AutoExecutor.map_array = submit


@contextlib.contextmanager
def _stderr_in(path: Path) -> Iterator[None]:
    """Within the block, the standard error of this process and of those it starts is a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sys.stderr.flush()
    stderr = os.dup(2)
    with open(path, "ab") as file:
        os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(stderr, 2)
        os.close(stderr)


class _Awaited:
    """A job whose results can be had however it ended. They tell its log, as ``log``."""

    def __init__(self, job: Any):
        self._job = job

    def results(self) -> list[JobReturn]:
        job = self._job
        job.wait()
        if job.state != "COMPLETED":
            job._results_timeout_s = 1  # or a hundred that were cancelled took long
        try:
            results = job.results()
        except Exception:  # there is none, or none that can be read here
            error = JobLost(f"job {job.job_id} ended as {job.state}, without a result")
            results = [JobReturn(status=JobStatus.FAILED, _return_value=error)]
        for result in results:
            result.log = job.paths.stdout
        return results


def _end(jobs: list[Any], patience: float) -> None:
    """End jobs on this machine; give them time to do so where they got the signal too."""
    for seconds in (patience, SECONDS_TO_END):
        end = time.monotonic() + seconds
        while time.monotonic() < end and not all(job.done() for job in jobs):
            time.sleep(0.1)
        for job in jobs:
            if not job.done():
                job.cancel()
