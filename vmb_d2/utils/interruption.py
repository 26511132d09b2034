"""Signals that ask a program to end: Ctrl-C (SIGINT), SIGTERM, and those of a cluster.

Before the images are extracted, as while the model is loaded, a signal raises at once: nothing is
lost. From the first batch until the run is recorded, in :func:`deferred`, it is noted, and takes
effect where :func:`check` is called, between two batches; a second Ctrl-C raises at once. What was
extracted is written by a thread of its own. Python runs signal handlers in the main thread only, so
no signal ends a write, and on the way out the main thread waits for what is left to be written.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any, NoReturn

_DEFERRED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
_DEFAULTS: dict[int, Any] = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGTERM: signal.SIG_DFL,
}


class Interrupted(KeyboardInterrupt):
    """A signal asked for the end."""

    def __init__(self, signum: int):
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


@contextlib.contextmanager
def handled() -> Iterator[None]:
    """Within the block, the first SIGINT or SIGTERM raises :class:`Interrupted`.

    Those that follow are ignored until the end of the block, so that it can be left in order. A
    signal that has another handler than Python's own, such as that of a cluster's launcher, keeps
    it. Outside of the main thread, which alone can handle signals, nothing changes.
    """
    before: dict[int, Any] = {}

    def interrupt(signum: int, frame: object) -> NoReturn:
        for own in before:
            signal.signal(own, signal.SIG_IGN)
        raise Interrupted(signum)

    if _in_main_thread():
        for signum, default in _DEFAULTS.items():
            if signal.getsignal(signum) is default:
                before[signum] = signal.signal(signum, interrupt)
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


class _Deferral:
    """The signals of one :func:`deferred` block."""

    def __init__(self) -> None:
        found: dict[int, Any] = {signum: signal.getsignal(signum) for signum in _DEFERRED}
        self.handlers = {signum: handler for signum, handler in found.items() if callable(handler)}
        self.noted: list[int] = []
        self.is_ending = False
        for signum in self.handlers:
            signal.signal(signum, self.note)

    def note(self, signum: int, frame: object) -> None:
        if self.is_ending:
            return
        is_second = signum == signal.SIGINT and bool(self.noted)
        if signum not in self.noted:
            self.noted.append(signum)
        if is_second:
            self.act()

    def act(self) -> None:
        """Call the handlers of what was noted. What one of them raises ends the block."""
        while self.noted and not self.is_ending:
            signum = self.noted.pop(0)
            # Also in processes that the handler starts: a cluster sends a signal to all of a job's.
            signal.signal(signum, signal.SIG_IGN)
            try:
                self.handlers[signum](signum, None)
            except BaseException:
                self.is_ending = True
                raise
            finally:
                signal.signal(signum, self.note)


_current: _Deferral | None = None


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Within the block, a signal that has a handler waits for :func:`check` or the block's end.

    A second Ctrl-C doesn't. Once a signal has ended the block, others are ignored until its end;
    where an error ends it, a signal that was noted is dropped.
    """
    global _current
    if not _in_main_thread():
        yield
        return
    before, _current = _current, _Deferral()
    deferral = _current
    try:
        yield
        deferral.act()
    finally:
        _current = before
        for signum, handler in deferral.handlers.items():
            signal.signal(signum, handler)


def check() -> None:
    """Raise, or do, what a signal that was noted in :func:`deferred` asks for."""
    if _current is not None and _in_main_thread():
        _current.act()


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
