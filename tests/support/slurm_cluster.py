"""A Slurm cluster on this machine, for the tests alone, and the app on it."""

import os
import random
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import sweeps

SCRIPTS = Path(__file__).parent / "slurm"
PROGRAMS = ("munged", "munge", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue")
LAUNCHER = [
    "-m",
    "hydra/launcher=slurm",
    "hydra.launcher.partition=ci",
    "hydra.launcher.cpus_per_task=1",
    "hydra.launcher.mem_gb=1",
]


def missing_programs():
    """The parts of Slurm that aren't installed here."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    return [program for program in PROGRAMS if not shutil.which(program, path=path)]


def _free_ports(count):
    """The first of several free ports in a row."""
    while True:
        first = random.randrange(20_000, 30_000)
        try:
            for port in range(first, first + count):
                with socket.socket() as taken:
                    taken.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first


class Cluster:
    """Two nodes with two GPUs that aren't real. It ends with :meth:`stop`, or with this process.

    Attributes:
        environment: what a process needs to use it.

    Raises RuntimeError where it doesn't start.
    """

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="slurm_"))
        for _ in range(3):  # another process may be faster to take a port
            up = subprocess.run(
                ["bash", SCRIPTS / "slurm_up.sh", self.folder, str(_free_ports(3))],
                env=sweeps.environment(),
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            if up.returncode == 0:
                break
        else:
            shutil.rmtree(self.folder)
            raise RuntimeError(f"Slurm is installed, but doesn't start: {up.stderr}")
        # Its input ends with this process at the latest.
        down = f"cat; bash '{SCRIPTS}/slurm_down.sh' '{self.folder}'; rm -rf '{self.folder}'"
        options = {"stdin": subprocess.PIPE, "start_new_session": True}
        self._watch = subprocess.Popen(["bash", "-c", down], **options)
        self.environment = {
            "SLURM_CONF": str(self.folder / "etc" / "slurm.conf"),
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
        }

    def stop(self):
        """End all jobs and the cluster."""
        self._watch.stdin.close()
        self._watch.wait(90)

    def call(self, *command):
        """What one of Slurm's programs prints."""
        done = subprocess.run(
            [str(part) for part in command],
            env=sweeps.environment(**self.environment),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def squeue(self, field, job=None):
        """{job: a field of squeue's} of all jobs ever, or of one, with all of its array."""
        only = [] if job is None else [f"--jobs={job}"]
        lines = self.call("squeue", "-h", "-r", "--states=all", f"--format=%i|{field}", *only)
        return dict(line.split("|") for line in lines.splitlines())

    def start(self, *overrides, **environment):
        """Start a sweep on the cluster; see :class:`sweeps.Started`."""
        return sweeps.Started(*LAUNCHER, *overrides, **self.environment, **environment)

    def run(self, *overrides, limit=120, **environment):
        """Run a sweep on the cluster to its end."""
        with self.start(*overrides, **environment) as started:
            return started.finish(limit)
