"""Signals end a block at once, but never in the middle of a write."""

import os
import signal
import threading

import pytest

from vmb_d2 import interruption
from vmb_d2.interruption import Interrupted


def send(signum):
    os.kill(os.getpid(), signum)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_raises(signum):
    with pytest.raises(KeyboardInterrupt) as caught, interruption.handled():
        send(signum)
    assert isinstance(caught.value, Interrupted)
    assert caught.value.signum == signum
    assert str(caught.value) == signal.Signals(signum).name


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_write_is_finished_first(signum):
    steps = []
    with pytest.raises(Interrupted), interruption.handled():
        with interruption.held():
            with interruption.held():
                send(signum)
                send(signum)
                steps.append("inner")
            steps.append("outer")
        steps.append("never")
    assert steps == ["inner", "outer"]
    with interruption.held():  # nothing is left waiting
        pass


def test_an_error_in_a_write_goes_first():
    with interruption.handled():
        with pytest.raises(OSError, match="full"), interruption.held():
            send(signal.SIGINT)
            raise OSError("full")
        with pytest.raises(Interrupted), interruption.held():
            pass


def test_a_signal_of_an_earlier_block_is_forgotten():
    with pytest.raises(OSError, match="full"), interruption.handled(), interruption.held():
        send(signal.SIGINT)
        raise OSError("full")
    with interruption.handled(), interruption.held():
        pass


def test_handlers_are_as_before_afterwards():
    before = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    with interruption.handled():
        assert signal.getsignal(signal.SIGTERM) is not before[1]
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == before


def test_somebody_elses_handler_stays():
    seen = []
    before = signal.signal(signal.SIGTERM, lambda signum, frame: seen.append(signum))
    try:
        with interruption.handled():
            send(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == [signal.SIGTERM]


def test_outside_of_the_main_thread_nothing_is_handled():
    def work():
        with interruption.handled(), interruption.held():
            seen.append(signal.getsignal(signal.SIGTERM))

    seen = []
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGTERM)]
