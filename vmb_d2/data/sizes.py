"""Headers of image files, read ahead of their use."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from queue import SimpleQueue
from typing import TypeVar

THREADS = 4  # each waits for a file system, if anything
AHEAD = 32  # images

Size = TypeVar("Size")


def sizes_ahead(
    paths: Iterable[str], read: Callable[[str], Size], threads: int = THREADS, ahead: int = AHEAD
) -> Iterator[Size | Exception]:
    """What ``read`` gives for each path in order, or the error that it raises.

    Args:
        threads: in which it is called; 0: in the caller's, when it is asked for.
        ahead: for so many paths beyond the one asked for.
    """
    if not threads:
        yield from (_outcome(read, path) for path in paths)
        return
    requests: SimpleQueue = SimpleQueue()
    waiting: deque[SimpleQueue] = deque()
    ended = False

    def work() -> None:
        while (request := requests.get()) is not None:
            path, answer = request
            if not ended:
                answer.put(_outcome(read, path))

    try:
        for _ in range(threads):
            threading.Thread(target=work, name="sizes", daemon=True).start()
        for path in paths:
            waiting.append(SimpleQueue())
            requests.put((path, waiting[-1]))
            if len(waiting) > ahead:
                yield waiting.popleft().get()
        while waiting:
            yield waiting.popleft().get()
    finally:
        ended = True
        for _ in range(threads):
            requests.put(None)


def _outcome(read: Callable[[str], Size], path: str) -> Size | Exception:
    try:
        return read(path)
    except Exception as error:
        return error
