"""Ctrl-C and SIGTERM: an end at once, but never in the middle of a write."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator


class Interrupted(KeyboardInterrupt):
    """A signal asked for the end."""

    def __init__(self, signum: int):
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


class _State:
    depth = 0  # of held() blocks
    waiting: int | None = None  # the signal that came meanwhile


def _on_signal(signum: int, frame) -> None:
    if _State.depth:
        _State.waiting = signum
    else:
        raise Interrupted(signum)


@contextlib.contextmanager
def handled() -> Iterator[None]:
    """Within the block, SIGINT and SIGTERM raise :class:`Interrupted`, outside of :func:`held`.

    A handler that somebody else installed, such as a cluster's launcher, stays. So does everything
    outside of the main thread, where Python handles no signals.
    """
    before = {}
    _State.waiting = None
    if threading.current_thread() is threading.main_thread():
        for signum, default in (
            (signal.SIGINT, signal.default_int_handler),
            (signal.SIGTERM, signal.SIG_DFL),
        ):
            if signal.getsignal(signum) is default:
                before[signum] = signal.signal(signum, _on_signal)
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


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
    if not _State.depth and _State.waiting is not None:
        signum, _State.waiting = _State.waiting, None
        raise Interrupted(signum)
