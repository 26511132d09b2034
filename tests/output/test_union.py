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
from vmb_d2.output import union as pool
from vmb_d2.output.open_stores import find_stores, open_reader
from vmb_d2.output.union import UnionReader
from vmb_d2.stores import FORMATS


@pytest.fixture(params=ONE_FILE)
def name(request):
    """Of each format with one file."""
    return request.param


def test_all_shards_are_one_store(tmp_path, out, name):
    write_shards(out, name, PARTS)
    expected = alone(tmp_path / "alone", name, together(PARTS))
    for arguments in ([out], [str(out), name]):
        with open_reader(*arguments) as reader:
            assert isinstance(reader, UnionReader)
            assert (reader.path, reader.kind) == (out, FORMATS[name].reader)
            check(reader, expected)
            places = [place(out, index, 3, name) for index in range(3)]
            assert [part.path for part in reader.parts] == places
            one_by_one = []
            for path in places:
                with FORMATS[name].reader(path) as part:
                    one_by_one += part.names()
            assert list(reader.names()) == one_by_one  # in the order in which it is fastest
    assert find_stores(out) == [(FORMATS[name], path) for path in places]
    with pytest.raises(StoreError, match=f"{out}: has no image 'x'"), open_reader(out) as reader:
        reader.read("x")


def test_an_image_is_found_before_and_after_all_names_are_known(out, name):
    write_shards(out, name, PARTS)
    for first in (lambda r: r.read("f"), lambda r: "f" in r, len, lambda r: list(r.names())):
        with open_reader(out) as reader:
            first(reader)
            support.assert_same_regions(reader.read("f"), reader.parts[2].read("f"))
            assert "d" in reader
            assert "g" not in reader


@pytest.mark.parametrize("most_open", [64, 1])
def test_the_first_of_two_shards_counts(tmp_path, out, name, monkeypatch, most_open):
    monkeypatch.setattr(pool, "MOST_OPEN", most_open)
    again = [*PARTS, {"d": support.some_regions(70), "a": support.some_regions(71)}]
    write_shards(out, name, again)
    expected = alone(tmp_path / "alone", name, together(again))
    with open_reader(out) as reader:
        assert reader.merged is None
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


def files_of(name):
    """How many files a store is."""
    return 2 if name == "oscar" else 1


@pytest.mark.parametrize("listed", [True, False])
def test_few_files_are_open_at_a_time(tmp_path, out, name, monkeypatch, listed):
    monkeypatch.setattr(pool, "MOST_OPEN", 5)
    expected = alone(tmp_path / "alone", name, many(out, name))
    before = files_open()
    names = random.Random(1).sample(sorted(expected), 40)
    with few_files(12 * files_of(name)), open_reader(out) as a, open_reader(out) as b:
        for reader in (a, b) if listed else ():
            assert set(reader.names()) == set(expected)
        for image in names:
            for reader in (a, b):
                support.assert_same_regions(reader.read(image), expected[image])
                assert files_open() <= before + 5 * files_of(name)
    assert files_open() == before


def test_by_default_they_are_fewer_than_any_system_allows(out, name):
    many(out, name, 100)
    before = files_open()
    with few_files(80 * files_of(name)), open_reader(out) as reader:
        assert len(reader) == 200
        assert files_open() == before + 64 * files_of(name)


def test_those_that_were_used_last_stay_open(out, name, monkeypatch):
    many(out, name, 4)
    monkeypatch.setattr(pool, "MOST_OPEN", 2)
    opened = []
    kind = FORMATS[name].reader
    init = kind.__init__
    with open_reader(out) as reader:
        assert len(reader) == 8
        monkeypatch.setattr(kind, "__init__", lambda self, p: opened.append(p) or init(self, p))
        for index in (0, 1, 0, 2, 0, 1):
            reader.read(f"{index}/1")
    assert opened == [place(out, index, 4, name) for index in (0, 1, 2, 1)]


def test_listing_goes_on_while_others_are_read(out, name, monkeypatch):
    monkeypatch.setattr(pool, "MOST_OPEN", 2)
    expected = many(out, name, 8)
    with open_reader(out) as reader, open_reader(out) as other:
        found = []
        for image in reader.names():
            found.append(image)
            for far in ("0/0", "3/1", "7/0", "5/1"):
                assert len(other.read(far)) == 5
                reader.parts[int(far[0])].read(far)
        assert sorted(found) == sorted(expected)


def test_threads_read_at_the_same_time(tmp_path, out, name, monkeypatch):
    monkeypatch.setattr(pool, "MOST_OPEN", 2)
    expected = alone(tmp_path / "alone", name, many(out, name, 8))
    errors = []
    with open_reader(out) as reader:

        def work(seed):
            try:
                for image in random.Random(seed).sample(sorted(expected), 16) * 3:
                    support.assert_same_regions(reader.read(image), expected[image])
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert errors == []


def test_an_image_of_few_stores_is_found_without_listing_them(out, name, monkeypatch):
    many(out, name, 4)
    listed = []
    kind = FORMATS[name].reader
    names = kind.names
    monkeypatch.setattr(kind, "names", lambda self: listed.append(self.path) or names(self))
    with open_reader(out) as reader:
        assert len(reader.read("3/1")) == 5
        assert "9" not in reader
        assert listed == []
    monkeypatch.setattr(pool, "MOST_OPEN", 3)
    opened = []
    init = kind.__init__
    monkeypatch.setattr(kind, "__init__", lambda self, p: opened.append(p) or init(self, p))
    with open_reader(out) as reader:
        assert len(reader.read("3/1")) == 5
        assert len(listed) == 4
        opened.clear()
        for _ in range(5):
            assert "9" not in reader
            assert len(reader.read("3/0")) == 5
        assert (len(listed), opened) == (4, [])


def test_a_store_that_goes_while_it_is_closed(out, name, monkeypatch):
    monkeypatch.setattr(pool, "MOST_OPEN", 1)
    write_shards(out, name, PARTS)
    with open_reader(out) as reader:
        assert len(reader) == 6
        os.rename(out / "shards" / "0-of-3", out / "elsewhere")
        with pytest.raises(StoreError, match="0-of-3"):
            reader.read("a")
        assert len(reader.read("f")) == 5


def test_a_closed_reader_stays_closed(out, name):
    write_shards(out, name, PARTS)
    before = files_open()
    reader = open_reader(out)
    assert len(reader) == 6
    reader.close()
    reader.close()
    assert files_open() == before
    with pytest.raises(StoreError, match=r"0-of-3/.*: is closed"):
        reader.read("a")
