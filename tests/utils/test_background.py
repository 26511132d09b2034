"""Writing in a thread: in order, bounded, worked off at every end, and nothing after an error."""

import os
import signal
import threading
import time
import weakref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmb_d2.errors import OutputError
from vmb_d2.utils import background
from vmb_d2.utils.background import BackgroundWriter
from vmb_d2.utils.interruption import Interrupted, handled


@given(st.lists(st.integers(), max_size=20), st.integers(1, 4))
def test_all_is_written_in_order(items, most):
    written = []
    with BackgroundWriter(written.append, most) as writer:
        for item in items:
            writer.put(item)
    assert written == items


def test_it_is_another_thread_that_writes_and_it_has_ended_afterwards():
    threads = []
    with BackgroundWriter(lambda: threads.append(threading.current_thread())) as writer:
        writer.put()
        writer.put()
    assert len(set(threads)) == 1
    threads[0].join(10)
    assert not threads[0].is_alive()
    assert threads[0] is not threading.current_thread()


def test_no_thread_is_left_where_nothing_was_put():
    before = threading.active_count()
    with BackgroundWriter(pytest.fail):
        assert threading.active_count() == before
    assert threading.active_count() == before


@pytest.mark.parametrize("most", [1, 3])
def test_it_is_never_far_behind(most):
    def write(number):
        if number == 0:
            go_on.wait(10)
        behind.append(len(given) - number)

    def put_all():
        with BackgroundWriter(write, most) as writer:
            for number in range(10):
                writer.put(number)
                given.append(number)

    go_on, given, behind = threading.Event(), [], []
    thread = threading.Thread(target=put_all)
    thread.start()
    while len(given) < most:
        time.sleep(0.001)
    time.sleep(0.05)
    assert len(given) == most  # one is being written, the others wait
    go_on.set()
    thread.join()
    assert len(behind) == 10
    assert max(behind) <= most


def test_what_was_written_is_let_go_of():
    class Item:
        pass

    def put(writer):
        item = Item()
        items.append(weakref.ref(item))
        writer.put(item)

    items, written = [], threading.Event()
    with BackgroundWriter(lambda item: written.set()) as writer:
        put(writer)
        assert written.wait(10)
        end = time.monotonic() + 10
        while items[0]() is not None and time.monotonic() < end:
            time.sleep(0.001)
        assert items[0]() is None


def fail_at(number, written):
    def write(item):
        if item == number:
            raise OutputError("full")
        written.append(item)

    return write


def test_an_error_comes_with_one_of_the_next_puts_and_nothing_is_written_after_it():
    written = []
    with pytest.raises(OutputError, match="full"), BackgroundWriter(fail_at(2, written)) as writer:
        for number in range(100):
            writer.put(number)
            put = number
    assert written == [0, 1]
    assert put <= 2 + background.MOST_WAITING


def test_what_waits_when_a_write_fails_is_not_written():
    def write(number):
        asked.append(number)
        all_put.wait(10)
        raise OutputError("full")

    asked, all_put = [], threading.Event()
    with pytest.raises(OutputError), BackgroundWriter(write) as writer:
        for number in range(3):
            writer.put(number)
        all_put.set()
    assert asked == [0]


def test_an_error_is_found_without_a_put():
    with pytest.raises(OutputError), BackgroundWriter(fail_at(0, [])) as writer:
        writer.put(0)
        while True:
            writer.check()
            time.sleep(0.001)


def test_an_error_in_what_was_put_last_comes_at_the_end():
    with pytest.raises(OutputError), BackgroundWriter(fail_at(0, [])) as writer:
        writer.put(0)


@pytest.mark.parametrize("error", [ValueError("another"), KeyboardInterrupt()])
def test_at_an_error_of_the_block_all_is_written_first(error):
    def write(number):
        time.sleep(0.02)
        written.append(number)

    written = []
    with pytest.raises(type(error)) as caught, BackgroundWriter(write) as writer:
        for number in range(3):
            writer.put(number)
        raise error
    assert caught.value is error
    assert written == [0, 1, 2]


def test_an_error_of_a_write_goes_before_one_of_the_block():
    """Since after it the stores must not be written to: their owner has to know of it."""
    with pytest.raises(OutputError) as caught, BackgroundWriter(fail_at(0, [])) as writer:
        writer.put(0)
        raise KeyboardInterrupt
    assert isinstance(caught.value.__context__, KeyboardInterrupt)


@pytest.mark.parametrize("where", ["in the block", "at its end"])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("is_handled", [True, False])
def test_a_signal_waits_for_what_was_put(where, count, is_handled):
    """Also one that comes again, and also where nobody but Python handles it."""

    def write(number):
        if number == 0 and not in_block:
            for _ in range(count):
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.05)
        time.sleep(0.05)
        written.append(number)

    def work():
        with BackgroundWriter(write) as writer:
            for number in range(3):
                writer.put(number)
            if in_block:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(10)
                pytest.fail("not interrupted")

    written, in_block = [], where == "in the block"
    with pytest.raises(Interrupted if is_handled else KeyboardInterrupt):
        if is_handled:
            with handled():
                work()
        else:
            work()
    # One that comes before the last is put ends the block there.
    assert written == list(range(len(written)))
    assert len(written) == 3 if in_block else written


def test_a_signal_while_there_is_no_room():
    def write(number):
        if number == 0:
            time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.05)
        written.append(number)

    written, put = [], []
    with pytest.raises(Interrupted), handled(), BackgroundWriter(write, 1) as writer:
        for number in range(3):
            writer.put(number)
            put.append(number)
    assert written == put == [0]
