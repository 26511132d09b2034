"""Signals: raised at once, or noted until they are looked at."""

import contextlib
import os
import signal
import subprocess
import sys

import pytest

from vmb_d2.utils.interruption import Interrupted, check, deferred, handled

FOREIGN = ["SIGTERM", "SIGUSR1", "SIGUSR2"]


def send(signum):
    os.kill(os.getpid(), signum)


@contextlib.contextmanager
def installed(**handlers):
    """Handlers of another library."""
    signums = {signal.Signals[name]: handler for name, handler in handlers.items()}
    before = {signum: signal.signal(signum, handler) for signum, handler in signums.items()}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_raises_at_once_and_others_come_too_late(signum):
    before = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(KeyboardInterrupt) as caught, handled():
        try:
            send(signum)
        finally:
            send(signal.SIGINT)
            send(signal.SIGTERM)
    assert isinstance(caught.value, Interrupted)
    assert caught.value.signum == signum
    assert str(caught.value) == signal.Signals(signum).name
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.parametrize("at", ["check", "end"])
def test_a_deferred_signal_waits(at):
    signum, steps = signal.SIGTERM, []
    with pytest.raises(Interrupted) as caught, handled():
        with deferred():
            check()
            send(signum)
            steps.append("extracted")
            if at == "check":
                check()
                steps.append("never")
        steps.append("never")
    assert steps == ["extracted"]
    assert caught.value.signum == signum
    with handled(), deferred():  # nothing is left of it
        check()


def test_a_second_ctrl_c_raises_at_once_and_a_third_comes_too_late():
    steps = []
    with pytest.raises(Interrupted), handled(), deferred():
        try:
            send(signal.SIGINT)
            steps.append("noted")
            send(signal.SIGINT)
            steps.append("never")
        finally:
            send(signal.SIGINT)
            steps.append("way out")
    assert steps == ["noted", "way out"]


def test_an_error_goes_before_a_deferred_signal():
    with pytest.raises(OSError, match="full"), handled(), deferred():
        send(signal.SIGINT)
        raise OSError("full")


def test_a_block_in_a_block():
    """A job, in a sweep whose jobs come one after the other."""
    steps = []
    with pytest.raises(Interrupted, match="SIGTERM"), handled():
        try:
            with handled(), deferred():
                send(signal.SIGTERM)
                steps.append("extracted")
            steps.append("never")
        finally:
            steps.append("way out")
    assert steps == ["extracted", "way out"]


def test_the_handler_of_another_library_is_called():
    signum, steps = signal.SIGUSR2, []
    with installed(SIGUSR2=lambda signum, frame: steps.append(signum)), handled():
        send(signum)
        assert steps == [signum]
        with deferred():
            send(signum)
            send(signum)
            steps.append("extracted")
            check()
            steps.append("more")
            send(signum)
    assert steps == [signum, "extracted", signum, "more", signum]


def test_signals_of_several_kinds_all_take_effect():
    seen = []
    handlers = {name: lambda signum, frame: seen.append(signum) for name in FOREIGN}
    with installed(**handlers), pytest.raises(Interrupted, match="SIGINT"), handled(), deferred():
        for signum in (signal.SIGUSR2, signal.SIGTERM, signal.SIGUSR2, signal.SIGINT):
            send(signum)
        assert seen == []
    assert seen == [signal.SIGUSR2, signal.SIGTERM]


@pytest.mark.parametrize("error", [ValueError("x"), SystemExit(3)], ids=repr)
def test_what_the_handler_of_another_library_raises_ends_the_block(error):
    def handler(signum, frame):
        raise error

    with installed(SIGUSR2=handler), pytest.raises(type(error)) as caught, handled(), deferred():
        try:
            send(signal.SIGUSR2)
            check()
        finally:
            send(signal.SIGUSR2)
            send(signal.SIGINT)  # too late
    assert caught.value is error


def test_handlers_are_as_before_afterwards_and_signals_that_nobody_handles_are_left_alone():
    def ignore(signum, frame):
        pass

    with installed(SIGTERM=signal.SIG_IGN, SIGUSR1=signal.SIG_DFL, SIGUSR2=ignore):
        with handled(), deferred():
            send(signal.SIGTERM)
            assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL
            assert signal.getsignal(signal.SIGUSR2) is not ignore
        assert signal.getsignal(signal.SIGUSR2) is ignore


def test_what_a_handler_starts_survives_the_signal_that_comes_again():
    """A cluster signals all processes of a job: also the one that has the job queued again."""
    statuses = []

    def queue_again(signum, frame):
        command = "import os, signal; os.kill(os.getpid(), signal.SIGUSR2)"
        statuses.append(subprocess.call([sys.executable, "-c", command]))

    with installed(SIGUSR2=queue_again), handled(), deferred():
        for _ in range(2):
            send(signal.SIGUSR2)
            check()
    assert statuses == [0, 0]
