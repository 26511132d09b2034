"""Which process has something: told to others in a file, and whether it still lives."""

from __future__ import annotations

import contextlib
import datetime
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def this_process() -> dict[str, Any]:
    """This process as plain values: host, pid, what tells it from others, its cluster job."""
    owner = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "machine": _machine(),
        "process_start": _start_of(os.getpid()),
        "since": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }
    if job := job_name(os.environ):
        owner["job"] = job
    return owner


def job_name(environment: Mapping[str, str]) -> str | None:
    """The Slurm job that a process runs in, as ``squeue`` shows it: ``17_3``, or ``17``."""
    variables = ("ARRAY_JOB_ID", "ARRAY_TASK_ID", "JOB_ID", "RESTART_COUNT")
    array, task, job, restarts = (environment.get(f"SLURM_{name}") for name in variables)
    name = f"{array}_{task}" if array and task else job
    return f"{name}, restart {restarts}" if name and restarts else name


def lives(owner: Mapping[str, Any]) -> bool | None:
    """Whether the process still runs; None where it can't be known, as on another machine."""
    if owner.get("machine") is None or owner.get("machine") != _machine():
        return None
    start = _start_of(owner.get("pid"))
    return start is not None and start == owner.get("process_start")


def describe(owner: Mapping[str, Any]) -> str:
    """The process in words."""
    text = f"process {owner.get('pid', '?')} on {owner.get('host', '?')}"
    return f"{text}, job {owner['job']}" if owner.get("job") else text


def _machine() -> str | None:
    """What is different on every machine, after every boot and in every container with process
    numbers of its own; None where the system has no such thing. The host's name is in it since
    virtual machines that were started from one image of the memory have the same boot."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{socket.gethostname()} {boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def _start_of(pid: Any) -> str | None:
    """When a process of this machine began, in ticks since boot; None where none runs.

    Numbers of processes are used again, pairs of number and start aren't.
    """
    with contextlib.suppress(OSError):
        # The second field, a name in parentheses, can hold anything; see proc(5).
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        if fields[0] not in "ZX":  # it ended, though its parent hasn't noticed yet
            return fields[19]
    return None
