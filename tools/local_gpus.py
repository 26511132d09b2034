"""A GPU for each job of a sweep on one machine. Submitit would give all of them the same."""

from __future__ import annotations

import os

VISIBLE, REMEMBERED = "CUDA_VISIBLE_DEVICES", "VMB_D2_VISIBLE_DEVICES"
ALL = "all"


def remember() -> None:
    """Note which GPUs this process may use: the launcher hides them from its jobs."""
    os.environ.setdefault(REMEMBERED, os.environ.get(VISIBLE, ALL))


def take_one(job: int) -> None:
    """In a job of the local launcher, and before anything uses a GPU: leave one of them visible.

    Args:
        job: the job's number in the sweep. Jobs take the GPUs in turn.
    """
    if os.environ.get("SUBMITIT_EXECUTOR") != "local":
        return
    remembered = os.environ.get(REMEMBERED, ALL)
    if remembered == ALL:
        import torch

        os.environ.pop(VISIBLE, None)
        gpus = [str(i) for i in range(torch.cuda.device_count())]
        if not gpus:
            return  # device=auto says why, where there should be some
    else:
        gpus = [gpu.strip() for gpu in remembered.split(",") if gpu.strip()]
    os.environ[VISIBLE] = gpus[job % len(gpus)] if gpus else ""
