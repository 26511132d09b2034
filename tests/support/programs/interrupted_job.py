"""Run a job over and over, each time in a process that gets a signal after a while, to its end.

    python interrupted_job.py IMAGES OUTPUT SIGNALS SEED WORKERS

A program of its own since it forks before any thread is there. Each run is checked for what it
leaves: all that was finished is stored, and no process. At last it prints how many runs there were
that a signal ended.
"""

import os
import random
import select
import signal
import sys
import time

from fakes import FakeExtractor

from vmb_d2.data.batching import Batching
from vmb_d2.data.image_list import list_images, name_images
from vmb_d2.engine.job import ExtractionJob
from vmb_d2.output.open_stores import open_reader
from vmb_d2.stores import FORMATS
from vmb_d2.utils.interruption import Interrupted, handled

BATCH_SIZE = 2
PATIENCE = 60  # seconds; a run that takes longer to end hangs


class Counting(FakeExtractor):
    """Says what is finished."""

    finished = 0

    def extract_batch(self, *arguments):
        time.sleep(0.03)  # or the whole run may be over before the signal comes
        regions = super().extract_batch(*arguments)
        self.finished += len(regions)
        os.write(self.departure, b".")
        return regions


def stored(output):
    if not os.path.exists(output):
        return 0
    counts = set()
    for name in FORMATS:
        with open_reader(output, name) as reader:
            counts.add(len(reader))
    assert len(counts) == 1, counts
    return counts.pop()


def extract(images, output, workers, departure):
    """Returns whether a signal ended it. From then on signals are ignored."""
    extractor = Counting()
    extractor.departure = departure
    options = {
        "options": extractor.options,
        "batching": Batching(batch_size=BATCH_SIZE),
        "workers": workers,
    }
    before = stored(output)
    job = ExtractionJob(output, list(FORMATS), **options)
    interrupted = False
    try:
        job.run(images, lambda: extractor)
        for signum in (signal.SIGINT, signal.SIGTERM):  # it came too late
            signal.signal(signum, signal.SIG_IGN)
    except Interrupted:
        interrupted = True
    # A batch that comes out of the network as the signal comes is not on its way to the disk yet.
    missing = extractor.finished - (stored(output) - before)
    assert 0 <= missing <= (BATCH_SIZE if interrupted else 0), missing
    try:
        raise SystemExit(f"left: {os.waitpid(-1, os.WNOHANG)}")
    except ChildProcessError:
        return interrupted


def main():
    images = name_images(list_images(sys.argv[1]))
    output = sys.argv[2]
    signals, seed, workers = map(int, sys.argv[3:])
    chance = random.Random(seed)
    sent = ended = 0
    while True:
        arrival, departure = os.pipe()
        child = os.fork()
        if not child:
            os.close(arrival)
            signal.signal(signal.SIGPIPE, signal.SIG_IGN)
            status = 70
            with handled():  # to the end of the process
                try:
                    status = 3 if extract(images, output, workers, departure) else 0
                finally:
                    sys.stderr.flush()
                    os._exit(status)
        os.close(departure)
        if sent < signals:  # from the first batch on
            select.select([arrival], [], [], PATIENCE)
            time.sleep(chance.uniform(0, 0.1))
            os.kill(child, chance.choice([signal.SIGINT, signal.SIGTERM]))
            sent += 1
        end = time.monotonic() + PATIENCE
        while not (found := os.waitpid(child, os.WNOHANG))[0]:
            if time.monotonic() > end:
                os.kill(child, signal.SIGABRT)
            time.sleep(0.01)
        os.close(arrival)
        status = os.waitstatus_to_exitcode(found[1])
        if status == 3:
            ended += 1
        elif status:
            sys.exit(f"ended with {status}")
        else:
            break
    print(f"ended {ended}", flush=True)


if __name__ == "__main__":
    main()
