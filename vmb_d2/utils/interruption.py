"""Ctrl-C, SIGTERM and a cluster's signals: an end at once, but never in the middle of a write."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import ClassVar


class Interrupted(KeyboardInterrupt):
    """A signal asked for the end."""

    def __init__(self, signum: int):
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


class _HandlerError(BaseException):
    """An error of a handler of somebody else's, on its way out through any ``except Exception``."""

    def __init__(self, error: Exception):
        super().__init__(str(error))
        self.error = error


class _State:
    depth = 0  # of held() blocks
    waiting: ClassVar[dict[int, Callable[[], None]]] = {}  # until the block ends
    ending = False  # a signal is on its way out: others come too late


def _interrupt(signum: int, frame) -> None:
    raise Interrupted(signum)


@contextlib.contextmanager
def _ignored(signum: int) -> Iterator[None]:
    """Within the block, a signal does nothing, to what is started in it neither.

    A cluster's signal goes to all processes of a job. It would end those that its handler starts,
    as to have the job queued again.
    """
    before = signal.signal(signum, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signum, before)


def _held_back(handler: Callable) -> Callable:
    """``handler`` as of the end of the :func:`held` block that a signal comes in."""

    def act(signum: int, frame) -> None:
        if _State.ending:
            return
        try:
            # Held, or the next one would come into the middle of it.
            with held(), _ignored(signum):
                handler(signum, frame)
        except BaseException as error:
            _State.ending = True
            if isinstance(error, Exception):
                raise _HandlerError(error) from error
            raise

    def on_signal(signum: int, frame) -> None:
        if _State.depth:
            _State.waiting[signum] = lambda: act(signum, None)
        else:
            act(signum, frame)

    return on_signal


def _handlers() -> dict[int, Callable]:
    """What to do on each signal."""
    handlers = {}
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        handlers[signal.SIGINT] = _interrupt
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        handlers[signal.SIGTERM] = _interrupt
    for signum in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        handler = signal.getsignal(signum)
        if callable(handler) and not isinstance(handler, signal.Handlers):
            handlers[signum] = handler
    return handlers


@contextlib.contextmanager
def handled() -> Iterator[None]:
    """Within the block, SIGINT and SIGTERM raise :class:`Interrupted`, outside of :func:`held`.

    A handler that somebody else installed, such as a cluster's launcher, is still called for
    SIGTERM, SIGUSR1 and SIGUSR2, but outside of :func:`held` too, and what it raises ends the
    block: an ``except Exception`` within doesn't see it. Once a signal ends the block, those that
    come on the way out are ignored. Outside of the main thread, where Python handles no signals,
    all stays as it is.
    """
    before = {}
    if threading.current_thread() is threading.main_thread():
        for signum, handler in _handlers().items():
            before[signum] = signal.signal(signum, _held_back(handler))
    try:
        yield
    except _HandlerError as raised:
        raise raised.error from None
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
        _State.waiting.clear()
        _State.ending = False


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Within the block, a signal waits; it takes effect at the block's end.

    Where an error ends the block, the error goes on, and the signal waits for the next block.
    """
    _State.depth += 1
    try:
        yield
    finally:
        _State.depth -= 1
    while not _State.depth and _State.waiting:
        _State.waiting.pop(next(iter(_State.waiting)))()
