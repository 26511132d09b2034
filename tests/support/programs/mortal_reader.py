"""Reads images as vmb_d2/reading/process.py does, but dies of some, fails at others, or is slow.

What it does depends on the name of the image's file: see ``MISHAPS``.
"""

import importlib.util
import os
import signal
import time
from pathlib import Path

PROGRAM = Path(__file__).parents[3] / "vmb_d2" / "data" / "reader_process.py"


def die(path):
    os.kill(os.getpid(), signal.SIGKILL)


def die_once(path):
    mark = Path(f"{path}.died")
    if not mark.exists():
        mark.touch()
        die(path)


def fail(path):
    raise RuntimeError("a mishap")


def wait(path):
    time.sleep(0.3)


MISHAPS = {"deadly": die, "once": die_once, "failing": fail, "slow": wait}


def main():
    spec = importlib.util.spec_from_file_location("process", PROGRAM)
    process = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(process)
    import_images = process.import_images

    def mortal_images():
        images = import_images()
        read = images.read_network_pixels

        def mortal_read(path):
            MISHAPS.get(Path(path).stem, str)(path)
            return read(path)

        images.read_network_pixels = mortal_read
        return images

    process.import_images = mortal_images
    process.main()


if __name__ == "__main__":
    main()
