"""Signals end a block at once, but never in the middle of a write."""

import contextlib
import os
import signal
import subprocess
import sys
import threading

import pytest

from vmb_d2.utils import interruption
from vmb_d2.utils.interruption import Interrupted


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


@contextlib.contextmanager
def installed(**handlers):
    """Handlers of somebody else's."""
    signums = {signal.Signals[name]: handler for name, handler in handlers.items()}
    before = {signum: signal.signal(signum, handler) for signum, handler in signums.items()}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def fail(signum, frame):
    raise ValueError(signal.Signals(signum).name)


FOREIGN = ["SIGTERM", "SIGUSR1", "SIGUSR2"]


@pytest.mark.parametrize("name", FOREIGN)
def test_somebody_elses_handler_is_called_at_once(name):
    def handler(signum, frame):
        seen.append((signum, frame is not None))

    seen = []
    with installed(**{name: handler}), interruption.handled():
        send(signal.Signals[name])
        assert seen == [(signal.Signals[name], True)]
        send(signal.Signals[name])
    assert len(seen) == 2


@pytest.mark.parametrize("name", FOREIGN)
def test_somebody_elses_handler_waits_for_the_end_of_a_write(name):
    steps = []
    with installed(**{name: lambda signum, frame: steps.append(signum)}), interruption.handled():
        with interruption.held():
            with interruption.held():
                send(signal.Signals[name])
            steps.append("written")
        steps.append("later")
    assert steps == ["written", signal.Signals[name], "later"]


def test_signals_of_two_kinds_both_take_effect():
    seen = []
    handlers = {name: lambda signum, frame: seen.append(signum) for name in FOREIGN}
    with installed(**handlers), pytest.raises(Interrupted, match="SIGINT"), interruption.handled():
        with interruption.held():
            for signum in (signal.SIGUSR2, signal.SIGTERM, signal.SIGUSR2, signal.SIGINT):
                send(signum)
            assert seen == []
        seen.append("never")
    assert seen == [signal.SIGUSR2, signal.SIGTERM]


def test_a_signal_that_comes_while_a_handler_is_at_work():
    def handler(signum, frame):
        with interruption.held():
            send(signal.SIGUSR1)
            seen.append("held")
        seen.append(signum)

    seen = []
    handlers = {"SIGUSR2": handler, "SIGUSR1": lambda signum, frame: seen.append(signum)}
    with installed(**handlers), interruption.handled(), interruption.held():
        send(signal.SIGUSR2)
    assert seen == ["held", signal.SIGUSR2, signal.SIGUSR1]


@pytest.mark.parametrize("in_a_write", [False, True])
def test_a_signal_that_comes_again_comes_too_late(in_a_write):
    """Neither into the middle of the handler, nor into what is done on the way out."""

    def handler(signum, frame):
        seen.append("begin")
        send(signum)
        seen.append("end")
        raise SystemExit

    seen = []
    write = interruption.held() if in_a_write else contextlib.nullcontext()
    with installed(SIGUSR2=handler), pytest.raises(SystemExit), interruption.handled():
        try:
            with write:
                send(signal.SIGUSR2)
        finally:
            send(signal.SIGUSR2)
            send(signal.SIGINT)
            with interruption.held():
                seen.append("way out")
    assert seen == ["begin", "end", "way out"]
    with pytest.raises(Interrupted), interruption.handled():
        send(signal.SIGINT)


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("in_a_write", [False, True])
def test_an_error_of_somebody_elses_handler_ends_the_block_as_itself(name, in_a_write):
    caught_within = []
    with installed(**{name: fail}):
        with pytest.raises(ValueError, match=name) as caught, interruption.handled():
            try:
                with interruption.held() if in_a_write else contextlib.nullcontext():
                    send(signal.Signals[name])
                    caught_within.append("written")
            except Exception as error:
                caught_within.append(error)
        assert caught_within == (["written"] if in_a_write else [])
        assert type(caught.value) is ValueError
        assert caught.value.__cause__ is None
        assert caught.value.__traceback__.tb_next  # it still says where it was raised
        assert "fail" in [entry.name for entry in caught.traceback]


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt("x")], ids=repr)
@pytest.mark.parametrize("in_a_write", [False, True])
def test_an_end_that_somebody_elses_handler_asks_for(error, in_a_write):
    def handler(signum, frame):
        raise error

    write = interruption.held() if in_a_write else contextlib.nullcontext()
    with (
        installed(SIGUSR2=handler),
        pytest.raises(type(error)) as caught,
        interruption.handled(),
        write,
    ):
        send(signal.SIGUSR2)
    assert caught.value is error


def test_an_error_of_a_handler_leaves_nothing_waiting():
    seen = []
    handlers = {"SIGUSR2": fail, "SIGUSR1": lambda signum, frame: seen.append(signum)}
    with installed(**handlers):
        with pytest.raises(ValueError), interruption.handled(), interruption.held():
            send(signal.SIGUSR2)
            send(signal.SIGUSR1)
        with interruption.handled(), interruption.held():
            pass
    assert seen == []


@pytest.mark.parametrize("in_a_write", [False, True])
def test_a_block_in_a_block(in_a_write):
    """A job, in a sweep whose jobs come one after the other."""
    steps = []
    write = interruption.held() if in_a_write else contextlib.nullcontext()
    with pytest.raises(Interrupted, match="SIGTERM"), interruption.handled():
        try:
            with interruption.handled(), write:
                send(signal.SIGTERM)
                steps.append("written")
            steps.append("never")
        finally:
            steps.append("way out")
    assert steps == (["written", "way out"] if in_a_write else ["way out"])


def test_somebody_elses_handlers_are_as_before_afterwards():
    def ignore(signum, frame):
        pass

    with installed(SIGTERM=fail, SIGUSR1=signal.SIG_IGN, SIGUSR2=ignore):
        for end in (contextlib.nullcontext(), pytest.raises(ValueError)):
            with end, interruption.handled():
                assert signal.getsignal(signal.SIGTERM) is not fail
                assert signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN
                assert signal.getsignal(signal.SIGUSR2) is not ignore
                if not isinstance(end, contextlib.nullcontext):
                    send(signal.SIGTERM)
            assert signal.getsignal(signal.SIGTERM) is fail
            assert signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGUSR2) is ignore


def test_signals_that_nobody_handles_are_left_alone():
    ignored = signal.SIG_IGN
    with installed(SIGINT=ignored, SIGTERM=ignored, SIGUSR1=signal.SIG_DFL), interruption.handled():
        send(signal.SIGINT)
        send(signal.SIGTERM)
        assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL


def test_what_a_handler_starts_survives_the_signal_that_comes_again():
    """A cluster signals all processes of a job: also the one that has the job queued again."""
    statuses = []

    def queue_again(signum, frame):
        command = "import os, signal; os.kill(os.getpid(), signal.SIGUSR2)"
        statuses.append(subprocess.call([sys.executable, "-c", command]))

    with installed(SIGUSR2=queue_again), interruption.handled():
        send(signal.SIGUSR2)
        send(signal.SIGUSR2)  # and it is heard again afterwards
    assert statuses == [0, 0]
