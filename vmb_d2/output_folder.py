"""The folder that a run writes into: made, checked, and kept from other runs."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import portalocker

from .errors import OutputError

LOCK_NAME = ".lock"


@contextlib.contextmanager
def sole_use(folder: str | Path) -> Iterator[Path]:
    """Make the folder where it isn't there, and let nobody else write into it meanwhile.

    The lock goes with the process, however it ends; its file stays.

    Raises:
        OutputError: the folder can't be made or written to, or another run has it.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = portalocker.Lock(folder / LOCK_NAME, "a+", timeout=0, fail_when_locked=True)
        file = lock.acquire()
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
    except portalocker.LockException as error:
        owner = ""
        with contextlib.suppress(OSError):
            owner = f": {(folder / LOCK_NAME).read_text()}"
        raise OutputError(f"output.dir={folder}: another run writes into it{owner}") from error
    except OSError as error:
        raise OutputError(f"output.dir={folder}: {error.strerror}") from error
    try:
        yield folder
    finally:
        lock.release()
