"""The number of images at a time: what can be asked for, and the choice, against naive loops."""

from hypothesis import given
from hypothesis import strategies as st

from vmb_d2.data.loading import MOST_DEFAULT_WORKERS, slots
from vmb_d2.data.preprocessing import LONG_SIDE, SHORT_SIDE
from vmb_d2.engine.auto_batch_size import (
    MOST,
    Choice,
    choose_batch_size,
    largest_batch,
)

steps = st.lists(st.tuples(st.integers(0, 500), st.integers(1, 100)), min_size=1, max_size=4)


@given(st.integers(-50, 500), st.integers(0, 60), st.integers(-100, 1000), st.integers(1, 40))
def test_the_largest_batch_is_the_naive_loops(fixed, each, available, most):
    expected = 1
    for count in range(1, most + 1):
        if fixed + count * each <= available:
            expected = count
    assert largest_batch(fixed, each, available, most) == expected


def naive_choice(need, free, most):
    """The most images that take no more than nine tenths, by trying all."""
    return max([1, *(n for n in range(1, most + 1) if 10 * need(n) <= 9 * free)])


def measured(need, free):
    """A measurement, and the list of what it is asked for."""
    tried = []

    def measure(count):
        tried.append(count)
        return need(count) if need(count) <= free else None

    return measure, tried


@given(st.integers(0, 500), st.integers(1, 100), st.integers(0, 3000), st.integers(1, 40))
def test_the_choice_where_memory_grows_in_a_straight_line(fixed, each, free, most):
    def need(count):
        return fixed + count * each

    measure, tried = measured(need, free)
    choice = choose_batch_size(measure, lambda: free, most)
    assert choice.batch_size == naive_choice(need, free, most)
    # One and two, and what they promise; nothing is tried twice or in vain.
    expected = [1, 2, choice.batch_size]
    if most == 1:
        expected = []
    elif need(1) > free:
        expected = [1]
    elif choice.batch_size <= 2:
        expected = [1, 2]
    assert tried == expected


@given(steps, st.integers(0, 3000), st.integers(1, 40))
def test_the_choice_where_one_step_or_another_takes_the_most(steps, free, most):
    def need(count):
        return max(fixed + count * each for fixed, each in steps)

    measure, tried = measured(need, free)
    choice = choose_batch_size(measure, lambda: free, most)
    assert choice.batch_size == naive_choice(need, free, most)
    assert len(tried) == len(set(tried)) <= 3 + most.bit_length()
    assert all(1 <= count <= most for count in tried)
    assert choice.needed in (None, need(choice.batch_size))
    assert (choice.needed is None) == (most == 1 or need(1) > free)
    assert choice.free in (None, free)


def test_what_two_images_promise_is_tried():
    """The first step decides up to two images, and the second from three on."""

    def need(count):
        return max(100 + count, 51 * count)

    tried = []

    def measure(count):
        tried.append(count)
        return need(count)

    assert choose_batch_size(measure, lambda: 500, 16) == Choice(8, 408, 500)
    assert tried == [1, 2, 16, 8, 12, 10, 9]


def test_what_is_free_is_asked_once_the_network_has_run():
    asked = []

    def measure(count):
        asked.append(count)
        return 10 * count

    def free():
        asked.append("free")
        return 100

    assert choose_batch_size(measure, free, 16) == Choice(9, 90, 100)
    assert asked == [1, 2, "free", 9]


def test_more_than_needed_for_fewer_images_is_no_reason_to_fail():
    """An operator can take less memory for two images than for one."""
    assert choose_batch_size({1: 50, 2: 40, 16: 60}.get, lambda: 100, 16) == Choice(16, 60, 100)
    assert choose_batch_size({1: 50, 2: 40}.get, lambda: 50, 16).batch_size == 1


def test_the_most_images_read_ahead_take_0_6_gb():
    places = slots(MOST_DEFAULT_WORKERS, MOST)
    assert places == 3 * MOST
    assert round(places * 3 * SHORT_SIDE * LONG_SIDE * 4 / 1e9, 1) == 0.6


def test_the_choice_in_words():
    assert str(Choice(1)) == "1 image at a time"
    assert str(Choice(1, 3_210_000_000, None)) == "1 image at a time"
    assert str(Choice(12, 13_400_000_000, 17_200_000_000)) == (
        "12 images at a time, for which up to 13.4 GB are needed; 17.2 GB are free"
    )
