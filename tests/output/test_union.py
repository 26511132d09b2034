"""Several stores read as one, few of them open at a time."""

import contextlib
import os
import resource

import pytest
import support
from sharded import PARTS, check, files_open, place, together, write_shards
from store_files import ONE_FILE

from vmb_d2.errors import StoreError
from vmb_d2.output import union
from vmb_d2.output.open_stores import open_reader
from vmb_d2.stores import FORMATS


@pytest.fixture(params=ONE_FILE)
def name(request):
    """Of each format with one file."""
    return request.param


def test_all_shards_are_one_store(out, name):
    write_shards(out, name, PARTS)
    places = [place(out, index, 3, name) for index in range(3)]
    for arguments in ([out], [str(out), name]):
        with open_reader(*arguments) as reader:
            assert (reader.path, reader.kind, reader.merged) == (out, FORMATS[name].reader, None)
            check(reader, name, together(PARTS))
            assert list(reader.stores) == places
            one_by_one = []
            for path in places:
                with FORMATS[name].reader(path) as part:
                    one_by_one += part.names()
            assert list(reader.names()) == one_by_one  # in the order in which it is fastest


def test_the_first_of_two_shards_counts(out, name):
    again = [*PARTS, {"d": support.some_regions(70), "a": support.some_regions(71)}]
    write_shards(out, name, again)
    with open_reader(out) as reader:
        check(reader, name, together(again))


def many(out, name, count=40):
    """A folder of so many shards, and what is in it."""
    parts = [{f"{i}/{j}": support.some_regions(2 * i + j) for j in range(2)} for i in range(count)]
    write_shards(out, name, parts)
    return together(parts)


@contextlib.contextmanager
def few_files(number):
    """So many files can be opened beyond those that are open."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir("/proc/self/fd")))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1 + number, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("name", ["lmdb", "oscar"])  # of one file, and of two
def test_few_files_are_open_at_a_time(out, name, monkeypatch):
    """By default fewer than any system allows."""
    assert union.MOST_OPEN == 64
    monkeypatch.setattr(union, "MOST_OPEN", 5)
    expected = many(out, name)
    before = files_open()
    most = 5 * (2 if name == "oscar" else 1)
    with few_files(most + 10), open_reader(out) as reader:
        check(reader, name, expected)
        assert files_open() <= before + most
    assert files_open() == before


def test_a_store_that_goes_while_it_is_closed(out, name, monkeypatch):
    monkeypatch.setattr(union, "MOST_OPEN", 1)
    write_shards(out, name, PARTS)
    with open_reader(out) as reader:
        assert len(reader) == 6
        os.rename(out / "shards" / "0-of-3", out / "elsewhere")
        with pytest.raises(StoreError, match="0-of-3"):
            reader.read("a")
        assert len(reader.read("f")) == 5
