"""Work that is done in order beside what the program does, but not put off for long."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue

from . import interruption

MOST_WAITING = 3


class BackgroundWriter:
    """Calls a function with what is put, in a thread, one call after the other.

    A context manager. However the block ends, what was put is worked off first, unless a call
    fails: then no other follows, and its error ends the block, also where a signal does so.

    Made of parts that a signal's exception can't leave half done, as it could a Condition.

    Args:
        function: is called in the thread.
        most_waiting: put and not yet worked off, at most.
    """

    def __init__(self, function: Callable[..., None], most_waiting: int = MOST_WAITING):
        self._function = function
        self._items: SimpleQueue = SimpleQueue()
        self._room: SimpleQueue = SimpleQueue()
        for _ in range(most_waiting):
            self._room.put(None)
        self._started = self._is_done = False
        self._done: SimpleQueue = SimpleQueue()
        self._error: BaseException | None = None

    def put(self, *arguments) -> None:
        """Have the function called with these, once there is room. Raises what a call raised."""
        self.check()
        self._room.get()
        self.check()
        if not self._started:
            with interruption.held():
                threading.Thread(target=self._work, name="writer", daemon=True).start()
                self._started = True
        self._items.put(arguments)

    def check(self) -> None:
        """Raise what a call raised."""
        if self._error is not None:
            raise self._error

    def __enter__(self) -> BackgroundWriter:
        return self

    def __exit__(self, kind, error, trace) -> None:
        interrupted = None
        self._items.put(None)
        while self._started and not self._is_done:
            try:
                self._done.get()
            except BaseException as signal:
                interrupted = signal
        if self._error is not error:
            self.check()
        if interrupted is not None:
            raise interrupted

    def _work(self) -> None:
        try:
            while (arguments := self._items.get()) is not None:
                if self._error is None:
                    try:
                        self._function(*arguments)
                    except BaseException as error:
                        self._error = error
                del arguments  # and with it what it holds
                self._room.put(None)
        finally:
            self._is_done = True
            self._done.put(None)
