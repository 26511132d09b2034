"""Work at shards, each in a process of its own that halts after two images.

    python halting_jobs.py IMAGES OUTPUT COUNT INDEX [INDEX ...]

With the index -1, at the whole run. It prints the number of each process once it halts, and that
a process ended where one did; at the end of its input it ends them all.
"""

import contextlib
import os
import select
import signal
import sys
import time
from pathlib import Path

from fakes import FakeExtractor
from status_records import run

from vmb_d2.data.image_list import list_images, name_images
from vmb_d2.output.lock import LEASE_NAME
from vmb_d2.output.shards import Shard
from vmb_d2.utils import lease

lease.Lease.__init__.__defaults__ = (0.05, lease.EXPIRY_SECONDS)  # signs of life at once


def work(source, output, count, index):
    shard = Shard("", count, index) if index >= 0 else None
    own = (shard.folder(output) if shard else Path(output)) / LEASE_NAME

    def halt(batch):
        if len(extractor.batches) < 2:
            return
        # What is written is noted with the next write: of two images, one.
        while (lease.read(own) or {}).get("note", {}).get("extracted") != 1:
            time.sleep(0.01)
        os.write(1, b"%d\n" % os.getpid())
        signal.pause()

    extractor = FakeExtractor(before_batch=halt)
    run(output, name_images(list_images(source)), shard, extractor)


def main():
    source, output, *numbers = sys.argv[1:]
    count, *indices = map(int, numbers)
    children = []
    for index in indices:
        arrival, departure = os.pipe()
        child = os.fork()
        if not child:
            os.dup2(departure, 1)
            work(source, output, count, index)
            os._exit(0)
        os.close(departure)
        os.write(1, os.read(arrival, 100))
        children.append(child)
    while not select.select([sys.stdin], [], [], 0.05)[0]:
        with contextlib.suppress(ChildProcessError):
            ended, _ = os.waitpid(-1, os.WNOHANG)
            if ended:
                os.write(1, b"%d ended\n" % ended)
    for child in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


if __name__ == "__main__":
    main()
