"""Run a job over and over, each time in a process that is killed after a while, to its end.

    python dying_job.py IMAGES OUTPUT DEATHS SEED [INDEX COUNT]

A program of its own since it forks before any thread is there. With INDEX and COUNT the job is a
shard's. At last it prints how many images an extractor was asked for, and the number of deaths.
"""

import os
import random
import signal
import sys
import time

from fakes import FakeExtractor

from vmb_d2.data.batching import Batching
from vmb_d2.data.image_list import list_images, name_images
from vmb_d2.engine.job import ExtractionJob
from vmb_d2.output.shards import Shard
from vmb_d2.stores import FORMATS
from vmb_d2.utils import lease

# A process that is killed while it creates its lease leaves an empty file, which could be that of
# another machine. Here it can't.
lease.EXPIRY_SECONDS = 2.0


def extract(images, output, shard, departure):
    def note(batch):
        os.write(departure, b"." * len(batch))

    extractor = FakeExtractor(before_batch=note, feature_names=["fc6", "fc7"])
    formats, options = list(FORMATS), extractor.options
    job = ExtractionJob(
        output, formats, options=options, batching=Batching(batch_size=2), shard=shard
    )
    job.run(shard.share(images, images) if shard else images, lambda: extractor)


def main():
    images = name_images(list_images(sys.argv[1]))
    output, deaths = sys.argv[2], int(sys.argv[3])
    chance = random.Random(int(sys.argv[4]))
    shard = Shard("", int(sys.argv[6]), int(sys.argv[5])) if len(sys.argv) > 5 else None
    died = asked = 0
    while True:
        arrival, departure = os.pipe()
        child = os.fork()
        if not child:
            extract(images, output, shard, departure)
            os._exit(0)
        os.close(departure)
        if died < deaths:  # some time after the beginning, or after one to three batches
            asked += sum(len(os.read(arrival, 2)) for _ in range(chance.randrange(4)))
            time.sleep(chance.uniform(0, 0.05))
            os.kill(child, signal.SIGKILL)
        while left := os.read(arrival, 1000):
            asked += len(left)
        os.close(arrival)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            died += 1
        elif status:
            sys.exit(f"ended with {status}")
        else:
            break
    print(f"asked {asked}, died {died}", flush=True)


if __name__ == "__main__":
    main()
