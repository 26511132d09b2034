"""Several stores read as one, few of them open at a time."""

import contextlib
import os
import random
import resource
import threading

import pytest
import support
from sharded import ONE_FILE, PARTS, alone, check, files_open, place, together, write_shards

from vmb_d2.errors import StoreError
from vmb_d2.output import union
from vmb_d2.output.open_stores import find_stores, open_reader
from vmb_d2.stores import FORMATS


@pytest.fixture(params=ONE_FILE)
def name(request):
    """Of each format with one file."""
    return request.param


def test_all_shards_are_one_store(tmp_path, out, name):
    write_shards(out, name, PARTS)
    expected = alone(tmp_path / "alone", name, together(PARTS))
    places = [place(out, index, 3, name) for index in range(3)]
    for arguments in ([out], [str(out), name]):
        with open_reader(*arguments) as reader:
            assert (reader.path, reader.kind, reader.merged) == (out, FORMATS[name].reader, None)
            check(reader, expected)
            assert [part.path for part in reader.parts] == places
            one_by_one = []
            for path in places:
                with FORMATS[name].reader(path) as part:
                    one_by_one += part.names()
            assert list(reader.names()) == one_by_one  # in the order in which it is fastest
    assert find_stores(out) == [(FORMATS[name], path) for path in places]


@pytest.mark.parametrize("most_open", [64, 1])
def test_the_first_of_two_shards_counts(tmp_path, out, name, monkeypatch, most_open):
    monkeypatch.setattr(union, "MOST_OPEN", most_open)
    again = [*PARTS, {"d": support.some_regions(70), "a": support.some_regions(71)}]
    write_shards(out, name, again)
    expected = alone(tmp_path / "alone", name, together(again))
    with open_reader(out) as reader:
        support.assert_same_regions(reader.read("d"), expected["d"])
        check(reader, expected)


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
@pytest.mark.parametrize("most_open", [5, 64])
def test_few_files_are_open_at_a_time(tmp_path, out, name, monkeypatch, most_open):
    """By default fewer than any system allows."""
    assert union.MOST_OPEN == 64
    monkeypatch.setattr(union, "MOST_OPEN", most_open)
    expected = alone(tmp_path / "alone", name, many(out, name))
    before = files_open()
    files_of_each = 2 if name == "oscar" else 1
    names = random.Random(1).sample(sorted(expected), 20)
    most = most_open * files_of_each
    with few_files(most + 10), open_reader(out) as a, open_reader(out) as b:
        assert set(a.names()) == set(expected)
        for image in names:
            for reader in (a, b):
                support.assert_same_regions(reader.read(image), expected[image])
                assert files_open() <= before + most
    assert files_open() == before


def test_listing_goes_on_while_others_are_read(out, monkeypatch):
    monkeypatch.setattr(union, "MOST_OPEN", 2)
    expected = many(out, "lmdb", 8)
    with open_reader(out) as reader, open_reader(out) as other:
        found = []
        for image in reader.names():
            found.append(image)
            for far in ("0/0", "3/1", "7/0", "5/1"):
                assert len(other.read(far)) == 5
                reader.parts[int(far[0])].read(far)
        assert sorted(found) == sorted(expected)


@pytest.mark.parametrize("name", ["lmdb", "hdf5"])
def test_threads_read_at_the_same_time(tmp_path, out, name, monkeypatch):
    monkeypatch.setattr(union, "MOST_OPEN", 2)
    expected = alone(tmp_path / "alone", name, many(out, name, 8))
    errors = []
    with open_reader(out) as reader:

        def work(seed):
            try:
                for image in random.Random(seed).sample(sorted(expected), 16):
                    support.assert_same_regions(reader.read(image), expected[image])
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert errors == []


def test_a_store_that_goes_while_it_is_closed(out, name, monkeypatch):
    monkeypatch.setattr(union, "MOST_OPEN", 1)
    write_shards(out, name, PARTS)
    with open_reader(out) as reader:
        assert len(reader) == 6
        os.rename(out / "shards" / "0-of-3", out / "elsewhere")
        with pytest.raises(StoreError, match="0-of-3"):
            reader.read("a")
        assert len(reader.read("f")) == 5
