"""Files that are written whole or not at all."""

import os

import pytest
import support

from vmb_d2.utils.files import write_at, write_whole


def test_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path):
    write_whole(tmp_path / "a", b"first")
    write_whole(tmp_path / "a", b"second")
    assert (tmp_path / "a").read_bytes() == b"second"
    with support.file_size_limit(10), pytest.raises(OSError, match="File too large"):
        write_whole(tmp_path / "a", bytes(100))
    assert (tmp_path / "a").read_bytes() == b"second"
    assert os.listdir(tmp_path) == ["a"]


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
