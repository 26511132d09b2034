"""Ends that no program can prevent: a killed process, a machine without power, a full disk."""

import ctypes
import os
import select
import signal
import time
import traceback
import warnings
from pathlib import Path

import pytest


def fork(work):
    """Run ``work(send)`` in a child. Returns its id, and where the lines that it sends arrive."""
    arrival, departure = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # other threads: the child needs none
        child = os.fork()
    if child:
        os.close(departure)
        return child, arrival
    status = 1
    try:
        os.close(arrival)
        work(lambda line: os.write(departure, f"{line}\n".encode()))
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _lines(arrival):
    with open(arrival, "rb") as file:
        return file.read().decode().splitlines()


def in_child(work):
    """Run ``work(send)`` in a child, whose crash is an error here. Returns the lines sent."""
    child, arrival = fork(work)
    lines = _lines(arrival)
    _, status = os.waitpid(child, 0)
    assert status == 0, f"status {status}"
    return lines


def killed(work, seconds, after_first=False):
    """Run ``work(send)`` in a child and kill it after a while. Returns the lines sent before.

    The while begins at once, or after the first line.
    """
    child, arrival = fork(work)
    if after_first:
        select.select([arrival], [], [])
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    lines = _lines(arrival)
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL), f"status {status}"
    return lines


class SmallDisk:
    """A file system in memory, seen only by the child that makes it.

    Skips the test where the kernel doesn't allow it.
    """

    NEW_NAMESPACES = 0x10000000 | 0x00020000  # of users, and of mounts
    PRIVATE = 0x4000 | 0x40000  # with all that is below
    REMOUNT, READ_ONLY = 32, 1

    def __init__(self, path, size):
        self.path = path
        self._libc = ctypes.CDLL(None, use_errno=True)
        user, group = os.getuid(), os.getgid()
        self._call("unshare", self.NEW_NAMESPACES)
        for file, text in (
            ("setgroups", "deny"),
            ("uid_map", f"0 {user} 1"),
            ("gid_map", f"0 {group} 1"),
        ):
            Path("/proc/self", file).write_text(text)
        self._mount(b"none", b"/", None, self.PRIVATE, None)
        self.mount(size)

    def mount(self, size, flags=0):
        self._mount(b"none", os.fsencode(self.path), b"tmpfs", flags, f"size={size}".encode())

    def resize(self, size):
        self.mount(size, self.REMOUNT)

    def make_read_only(self):
        self._mount(None, os.fsencode(self.path), None, self.REMOUNT | self.READ_ONLY, None)

    def _mount(self, *arguments):
        source, target, kind, flags, data = arguments
        self._call("mount", source, target, kind, ctypes.c_ulong(flags), data)

    def _call(self, name, *arguments):
        if getattr(self._libc, name)(*arguments):
            raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")


def on_small_disk(path, size, work):
    """Run ``work(disk)`` in a child, with a small disk at ``path``."""

    def whole(send):
        try:
            disk = SmallDisk(path, size)
        except OSError as error:
            send(error)
            return
        work(disk)

    reasons = in_child(whole)
    if reasons:
        pytest.skip(f"no small disk can be made here: {reasons[0]}")


class PowerFailure(BaseException):
    """Nothing works any more."""


def _unlink(path, missing_ok=False):
    try:
        os.unlink(path)
    except FileNotFoundError:
        if not missing_ok:
            raise


class Machine:
    """What a machine's death leaves of the files below a folder.

    Writes that were not synced are lost, kept or torn; names that were not are lost or kept.

    Args:
        folder: all files in it count as synced at first.
        monkeypatch: to watch and to fail the calls.
        fatal_step: which of the calls it dies in; None for no death.

    Attributes:
        steps: how many calls there were.
    """

    CALLS = ("pwrite", "ftruncate", "fsync", "replace", "unlink")

    def __init__(self, folder, monkeypatch, fatal_step=None):
        self.folder = folder
        self.steps = 0
        self.dead = False
        self._fatal_step = fatal_step
        self._ids = {}  # of inodes, which are used again
        self._content = {}
        self._states = [self._see()]  # names that the disk can have
        self._synced = dict(self._content)
        for call in self.CALLS:
            monkeypatch.setattr(os, call, self._watched(call, getattr(os, call)))
        monkeypatch.setattr(Path, "unlink", _unlink)  # before Python 3.11 it isn't os.unlink

    def forget(self, path, synced):
        """Let the disk have only this content of a file so far."""
        self._synced[self._states[-1][path.relative_to(self.folder)]] = synced

    def _see(self):
        """What every program sees: names, and the files' ids; contents are noted."""
        inodes, names = {}, {}
        for path in sorted(self.folder.rglob("*")):
            if path.is_file():
                inode = path.stat().st_ino
                inodes[inode] = self._ids.get(inode, object())
                names[path.relative_to(self.folder)] = inodes[inode]
                self._content[inodes[inode]] = path.read_bytes()
        self._ids = inodes
        return names

    def _watched(self, call, function):
        def watched(*arguments, **options):
            if self.dead:
                raise PowerFailure
            self.steps += 1
            self._states.append(self._see())
            if self.steps == self._fatal_step:
                if call == "pwrite":
                    descriptor, content, offset = arguments
                    function(descriptor, content[: len(content) // 2], offset)
                self._states.append(self._see())
                self.dead = True
                raise PowerFailure
            if call == "fsync":  # it need not really be done
                self._sync(Path(os.readlink(f"/proc/self/fd/{arguments[0]}")))
                return None
            result = function(*arguments, **options)
            self._states.append(self._see())
            return result

        return watched

    def _sync(self, path):
        now = dict(self._states[-1])
        if path.is_dir() and path.is_relative_to(self.folder):
            inside = path.relative_to(self.folder)
            safe = {name: id_ for name, id_ in now.items() if name.parent == inside}
            states = []
            for state in self._states:
                state = {n: id_ for n, id_ in state.items() if n.parent != inside} | safe
                if state not in states:
                    states.append(state)
            self._states = [*states, now]
        elif path.is_file() and path.is_relative_to(self.folder):
            id_ = now[path.relative_to(self.folder)]
            self._synced[id_] = self._content[id_]

    def leave(self, rng=None):
        """Put into the folder what is left. Without ``rng`` only the process died."""
        names = self._states[-1] if rng is None else rng.choice(self._states)
        left = {}
        for name, id_ in names.items():
            now, synced = self._content[id_], self._synced.get(id_, b"")
            left[name] = now if rng is None else self._torn(now, synced, rng)
        for path in self.folder.rglob("*"):
            if path.is_file():
                path.unlink()
        for name, content in left.items():
            (self.folder / name).write_bytes(content)

    @staticmethod
    def _torn(now, synced, rng, block=512):
        kind = rng.choice(("now", "synced", "torn"))
        if kind != "torn":
            return now if kind == "now" else synced
        size = len(rng.choice((now, synced)))
        padded = [content.ljust(size, b"\0")[:size] for content in (now, synced)]
        return b"".join(rng.choice(padded)[at : at + block] for at in range(0, size, block))
