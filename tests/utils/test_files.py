"""Files that are written whole or not at all, and by one of several processes."""

import errno
import os

import deaths
import pytest
from races import at_once

from vmb_d2.utils.files import write_at, write_new, write_whole

# What file systems without hard links say.
NO_LINKS = [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS]


def without_links(monkeypatch, number=errno.EPERM):
    def fail(*arguments):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", fail)


def test_a_new_file(tmp_path):
    write_new(tmp_path / "a", b"first")
    with pytest.raises(FileExistsError):
        write_new(tmp_path / "a", b"second")
    assert (tmp_path / "a").read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["a"]
    write_whole(tmp_path / "a", b"third")
    assert (tmp_path / "a").read_bytes() == b"third"


@pytest.mark.parametrize("number", NO_LINKS, ids=errno.errorcode.get)
def test_a_new_file_where_there_are_no_hard_links(tmp_path, monkeypatch, number):
    without_links(monkeypatch, number)
    test_a_new_file(tmp_path)


def test_another_error_of_a_link_is_an_error(tmp_path, monkeypatch):
    without_links(monkeypatch, errno.EIO)
    with pytest.raises(OSError, match="Input/output error"):
        write_new(tmp_path / "a", b"first")
    assert os.listdir(tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("links", [True, False])
def test_of_several_at_the_same_moment_one_writes_the_new_file(tmp_path, monkeypatch, links):
    def work(text):
        try:
            write_new(tmp_path / "a", text.encode() * 1000)
        except FileExistsError:
            return "late"
        return text

    if not links:
        without_links(monkeypatch)
    for _ in range(6):
        (tmp_path / "a").unlink(missing_ok=True)
        answers = at_once(*[lambda text=text: work(text) for text in "012345"])
        (winner,) = [answer for answer in answers if answer != "late"]
        assert (tmp_path / "a").read_text() == winner * 1000
        assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("links", [True, False])
def test_no_room_for_a_new_file_leaves_none(tmp_path, monkeypatch, links):
    """Without hard links, the content is written twice."""

    def work(disk):
        if links:
            with pytest.raises(OSError, match="No space left"):
                write_new(tmp_path / "a", bytes(40000))
            assert os.listdir(tmp_path) == []
            write_new(tmp_path / "a", bytes(20000))
            return
        with pytest.raises(OSError, match="No space left"):
            write_new(tmp_path / "a", bytes(20000))
        assert os.listdir(tmp_path) == []
        write_new(tmp_path / "a", bytes(10000))

    if not links:
        without_links(monkeypatch)
    deaths.on_small_disk(tmp_path, 32768, work)


def test_writing_at_a_place_of_an_open_file(tmp_path, monkeypatch):
    """All of it, though the system takes a part at a time."""
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, offset: real(file, data[:3], offset))
    (tmp_path / "a").write_bytes(b"0123456789")
    with open(tmp_path / "a", "r+b") as file:
        write_at(file.fileno(), b"abcdefgh", 1)
        write_at(file.fileno(), memoryview(b"xy"), 10)
        write_at(file.fileno(), b"", 0)
    assert (tmp_path / "a").read_bytes() == b"0abcdefgh9xy"
