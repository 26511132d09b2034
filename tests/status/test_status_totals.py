"""How long what is left of several shards takes, by numbers that are easy to follow."""

from pathlib import Path

import pytest

from vmb_d2.status import Part
from vmb_d2.status.totals import Totals


def part(state, images, done, rate=None):
    return Part(Path(), None, state, images=images, done=done, rate=rate)


def seconds(*parts):
    totals = Totals.of(parts)
    return totals.running_seconds, totals.all_seconds


def test_the_slowest_of_the_running_ones_counts():
    fast, slow = part("running", 100, 20, 4.0), part("running", 100, 10, 1.0)
    assert Totals.of([fast, slow]).rate == 5
    assert seconds(fast, slow) == (90, 90)  # not 170 images at 5 a second


def test_the_rest_is_done_at_the_rate_of_all():
    running = part("running", 100, 50, 2.0)
    waiting = part("not started", 1000, 0), part("stopped", 100, 50)
    assert seconds(running, *waiting) == (25, 550)
    assert seconds(running, part("done", 1000, 1000)) == (25, 25)


def test_one_that_is_at_its_beginning_gets_the_mean_rate():
    running = part("running", 10, 0, 2.0), part("running", 10, 0, 4.0)
    assert seconds(*running, part("running", 300, 0)) == (100, 100)


@pytest.mark.parametrize("state", ["running", "dead"])
def test_with_unknown_numbers_no_time_is_known(state):
    times = (None, None) if state == "running" else (10, None)
    parts = part("running", 20, 10, 1.0), part(state, None, 3)
    assert seconds(*parts) == times
    totals = Totals.of(parts)
    assert (totals.images, totals.done, totals.left, totals.unknown) == (20, 13, 10, 1)


def test_where_nothing_runs_no_time_is_known():
    assert seconds(part("dead", 10, 5), part("done", 5, 5)) == (None, None)
    assert seconds(part("running", 10, 0)) == (None, None)
