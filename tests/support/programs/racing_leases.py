"""Processes that race for one lease, again and again; many die with it, or on the way to it.

    python racing_leases.py FOLDER PROCESSES TURNS SEED

Each turn is a process: it gets the lease, creates a file that no other may have created, removes
it, and releases the lease. The file system is as slow as one of a network. At the end the number of
deaths is printed. A program of its own, since it forks before there is any thread.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

from vmb_d2.utils import lease as module
from vmb_d2.utils.lease import Lease, LeaseHeld

module.BEAT_SECONDS = 0.02


class Turn:
    def __init__(self, folder, seed):
        self.folder = folder
        self.chance = random.Random(seed)
        self.may_die = True

    def __call__(self):
        for name in ("open", "rename", "link", "unlink"):
            setattr(os, name, self.slow(getattr(os, name)))
        Path.unlink = self.slow(Path.unlink)
        lease = Lease(self.folder / "lease.json")
        while True:
            try:
                lease.acquire()
                break
            except LeaseHeld:
                time.sleep(self.chance.uniform(0, 0.002))
        self.alone(lease)
        if self.chance.random() < 0.4:
            self.die()
        lease.release()

    def alone(self, lease):
        self.may_die = False
        os.close(os.open(self.folder / "marker", os.O_CREAT | os.O_EXCL))
        lease.require()
        os.unlink(self.folder / "marker")
        self.may_die = True

    def slow(self, function):
        def slowed(*arguments, **options):
            if self.may_die and self.chance.random() < 0.02:
                self.die()
            time.sleep(self.chance.choice((0, 0, 0.001, 0.003)))
            return function(*arguments, **options)

        return slowed

    def die(self):
        os.kill(os.getpid(), signal.SIGKILL)


def forked(work):
    child = os.fork()
    if not child:
        try:
            work()
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return child


def turns(folder, count, seed):
    chance = random.Random(seed)
    deaths = 0
    for _ in range(count):
        _, status = os.waitpid(forked(Turn(folder, chance.random())), 0)
        deaths += status == signal.SIGKILL
        if status not in (0, signal.SIGKILL):
            raise RuntimeError(f"a turn ended with {status}")
    print(deaths, flush=True)


def main():
    folder, processes, count, seed = Path(sys.argv[1]), *map(int, sys.argv[2:])
    seeds = range(seed * processes, (seed + 1) * processes)
    children = [forked(lambda seed=seed: turns(folder, count, seed)) for seed in seeds]
    ends = [os.waitpid(child, 0)[1] for child in children]
    sys.exit(any(ends))


if __name__ == "__main__":
    main()
