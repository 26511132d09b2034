"""Hydra's sweeper, but a job that fails keeps no other from its end. Hydra finds it here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import submitted
from command_line import JobsFailed
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig

from vmb_d2.utils import interruption


class WholeSweeper(BasicSweeper):
    """Runs all jobs of the sweep, those of later batches too, whatever becomes of the others.

    Raises:
        ConfigError: before any job, for a launcher that can't do the work.
        JobsFailed: after all jobs, where some failed.
    """

    def setup(self, *, config: DictConfig, **arguments: Any) -> None:
        submitted.check(config.hydra.launcher)
        super().setup(config=config, **arguments)
        self.launcher = _Launcher(self.launcher)

    def sweep(self, arguments: list[str]) -> Any:
        returns = super().sweep(arguments)
        if self.launcher.errors:
            count = sum(len(batch) for batch in self.overrides)
            raise JobsFailed(self.launcher.errors, count, self.config.output.dir)
        return returns


class _Launcher:
    """The chosen launcher; what its jobs raise is put aside.

    Attributes:
        errors: (number of the job, its error, its log if it has one).
    """

    def __init__(self, launcher: Any):
        self._launcher = launcher
        self.errors: list[tuple[int, Exception, Path | None]] = []

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        with interruption.handled(), submitted.awaited():
            results = self._launcher.launch(job_overrides, initial_job_idx=initial_job_idx)
        for number, result in enumerate(results, initial_job_idx):
            if result.status is JobStatus.FAILED:
                log = getattr(result, "log", None)
                self.errors.append((number, result._return_value, log))
                result.status, result.return_value = JobStatus.COMPLETED, None
        return results
