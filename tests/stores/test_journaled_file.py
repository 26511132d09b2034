"""JournaledFile: an ordinary file to its user, and never half changed on the disk."""

import contextlib
import itertools
import os
import random

import deaths
import pytest
import support

from vmb_d2.errors import StoreError
from vmb_d2.stores.journaled_file import PAGE, JournaledFile, encode_journal, journal_path


def content_of(path):
    """What a reader sees, in whatever state the file is."""
    with JournaledFile(path, writable=False) as file:
        return file.read()


def change(rng, *files):
    """A random write, cut or growth, the same to each of the files, which are equal before."""
    size = files[0].seek(0, os.SEEK_END)
    kind = rng.choice(("append", "overwrite", "overwrite", "far", "cut", "grow"))
    place, beyond = rng.randrange(size + 1), size + rng.randrange(2 * PAGE)
    content = rng.randbytes(rng.choice((1, 100, PAGE, 3 * PAGE + 5)))
    for file in files:
        if kind == "cut":
            file.truncate(place)
        elif kind == "grow":
            file.truncate(beyond)
        else:
            file.seek({"append": size, "overwrite": place, "far": beyond}[kind])
            file.write(content)


@pytest.mark.parametrize("seed", range(10))
def test_an_ordinary_file_to_its_user(tmp_path, seed):
    rng = random.Random(seed)
    path = tmp_path / "folder" / "file"
    path.parent.mkdir()
    file = JournaledFile(path)
    with open(tmp_path / "plain", "w+b", buffering=0) as plain:
        for _ in range(60):
            change(rng, plain, file)
            place, length = rng.randrange(5 * PAGE), rng.randrange(5 * PAGE)
            for each in (plain, file):
                each.seek(place)
            assert file.read(length) == plain.read(length)
            assert file.tell() == plain.tell()
            if rng.random() < 0.3:
                file.commit()
                assert path.read_bytes() == (tmp_path / "plain").read_bytes()
                assert os.listdir(path.parent) == ["file"]
                if rng.random() < 0.3:
                    file.close()
                    file = JournaledFile(path)
    file.close()


def run(path, seed, states):
    """Three commits of random changes. ``states`` gets what each makes of the file, beforehand."""
    rng = random.Random(seed)
    file = JournaledFile(path)
    try:
        for _ in range(3):
            for _ in range(4):
                change(rng, file)
            file.seek(0)
            states.append(file.read())
            file.commit()
            states.append("committed")
    finally:
        file.close()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_death_at_every_step_leaves_the_state_of_one_commit(tmp_path, monkeypatch, seed):
    rng = random.Random(seed)
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / "file"
    for fatal_step in itertools.count(1):
        for lost in (False, True, True, True):
            for old in folder.iterdir():
                old.unlink()
            path.write_bytes(b"start" * 3000)
            states = [path.read_bytes(), "committed"]
            with monkeypatch.context() as patch:
                machine = deaths.Machine(folder, patch, fatal_step)
                with contextlib.suppress(deaths.PowerFailure):
                    run(path, seed, states)
            machine.leave(rng if lost else None)
            whole = [state for state in states if state != "committed"]
            # The last commit either happened, or not at all.
            possible = whole[-1:] if states[-1] == "committed" else whole[-2:]
            assert content_of(path) in possible
            assert content_of(path) in possible  # a reader changes nothing
            with JournaledFile(path) as file:
                found = file.read()
            assert found in possible
            assert path.read_bytes() == found
            assert [p.name for p in folder.iterdir() if not p.name.startswith(".")] == ["file"]
        if not machine.dead:
            break
    assert fatal_step > 20


def test_death_while_it_recovers(tmp_path, monkeypatch):
    old, new = b"a" * 3 * PAGE, b"b" * 2 * PAGE + b"a" * PAGE + b"new"
    whole = encode_journal(len(new), [(0, new[:PAGE]), (PAGE, new[PAGE : 2 * PAGE])])
    path = tmp_path / "file"
    for fatal_step in range(1, 7):
        path.write_bytes(old + b"new")
        journal_path(path).write_bytes(whole)
        with monkeypatch.context() as patch:
            machine = deaths.Machine(tmp_path, patch, fatal_step)
            with contextlib.suppress(deaths.PowerFailure):
                JournaledFile(path).close()
        machine.leave(random.Random(fatal_step))
        assert content_of(path) == new
        JournaledFile(path).close()
        assert path.read_bytes() == new
    assert machine.dead


def test_no_room_leaves_the_old_state_and_no_journal(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old" * 5000)
    for content in (b"new" * 9000, b"new" * 4000):  # no room for the file; none for the journal
        file = JournaledFile(path)
        file.write(content)
        limit = 20_000 if len(content) > 15_000 else 11_000
        with support.file_size_limit(limit), pytest.raises(OSError, match="too large"):
            file.commit()
        file.close()
        assert path.read_bytes() == b"old" * 5000
        assert os.listdir(tmp_path) == ["file"]


def test_a_damaged_journal_is_an_error(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)
    whole = encode_journal(100, [(3, b"yyy"), (50, b"z")])
    journal = journal_path(path)
    for size in range(len(whole)):
        journal.write_bytes(whole[:size])
        with pytest.raises(StoreError, match=r"file\.journal: no whole"):
            JournaledFile(path)
    for place in range(len(whole)):
        journal.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(StoreError, match=r"file\.journal: no whole"):
            content_of(path)
    assert path.read_bytes() == b"x" * 100


def test_the_journal_of_a_deleted_file_goes(tmp_path):
    path = tmp_path / "file"
    journal_path(path).write_bytes(encode_journal(100, [(0, b"old")]))
    JournaledFile(path).close()
    assert os.listdir(tmp_path) == ["file"]
