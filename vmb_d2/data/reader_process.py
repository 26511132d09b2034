"""Reads images for another process: the program of :class:`vmb_d2.data.reader_pool.ReaderPool`'s.

    python process.py CONNECTION MEMORY SIZE

It imports neither torch nor detectron2, which takes a quarter of a second and 50 MB instead of
seconds and 800 MB. It ends when the process that started it does, however that one ends. Signals
that can be blocked are, from the start: what they are to end is the run, which ends this process.

Args:
    CONNECTION: descriptor of a socket. First come the folders to import from; the answer is None,
        or why it can't work, as a text. Then come pairs (path, offset), answered in order by a list
        of what was warned of, and one of
            (height, width, scale, original height, original width, conversions), with the pixels in
            MEMORY
            the text of an ImageReadError
            None, where something else happened
    MEMORY: descriptor of memory that both map.
    SIZE: of the memory, in bytes.
"""

from __future__ import annotations

import contextlib
import importlib.util
import mmap
import sys
from multiprocessing.connection import Connection
from pathlib import Path

PACKAGE = "vmb_d2"


def import_images():
    """:mod:`vmb_d2.data.preprocessing`, without the package's ``__init__``."""
    file = Path(__file__).parents[1] / "__init__.py"
    spec = importlib.util.spec_from_file_location(PACKAGE, file)
    sys.modules[PACKAGE] = importlib.util.module_from_spec(spec)
    from . import preprocessing as images

    images.cv2.setNumThreads(1)
    return images


def read(images, path: str, memory: mmap.mmap, offset: int):
    """The answer to (path, offset)."""
    import numpy as np

    try:
        pixels, scale, *more = images.read_network_pixels(path)
        target = np.frombuffer(memory, np.float32, pixels.size, offset)
        target.reshape(pixels.shape)[:] = pixels
        return (*pixels.shape[1:], scale, *more)
    except images.ImageReadError as error:
        return str(error)
    except Exception:  # the run meets it itself
        return None


def serve(connection: Connection, memory: mmap.mmap) -> None:
    sys.path[:] = connection.recv()
    try:
        images = import_images()
    except Exception as error:
        connection.send(f"{type(error).__name__}: {error}")
        return
    connection.send(None)
    warned: list[str] = []
    with images.warnings_to(warned.append):
        while True:
            path, offset = connection.recv()
            answer = read(images, path, memory, offset)
            connection.send((warned, answer))
            warned.clear()


def main() -> None:
    connection, memory, size = map(int, sys.argv[1:])
    with contextlib.suppress(EOFError, OSError):  # the run has ended
        serve(Connection(connection), mmap.mmap(memory, size))


if __name__ == "__main__":
    main()
