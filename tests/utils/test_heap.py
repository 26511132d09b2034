"""Freed memory is used again, which the system's count of new pages shows."""

import ctypes
import json
import subprocess
import sys

import pytest
import support

from vmb_d2.utils import heap

# New pages of this process for ten blocks one after the other, as a network's maps are.
WATCHED = """
import json, resource, sys, torch
from vmb_d2.utils.heap import keep_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def ten_blocks():
    before = faults()
    for i in range(10):
        torch.ones(2**20 * (40 + i % 3) // 4)
    return faults() - before

done = keep_freed_memory() if sys.argv[1] == "keep" else None
ten_blocks()
print(json.dumps([done, ten_blocks()]))
"""


def watched(how):
    command = [sys.executable, "-c", WATCHED, how]
    done = subprocess.run(command, capture_output=True, text=True, cwd=support.ROOT, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_freed_memory_is_used_again():
    pages = 10 * 40 * 2**20 // 4096
    done, new_pages = watched("keep")
    assert done
    assert new_pages < pages / 100
    _, new_pages = watched("leave")
    assert new_pages > pages / 600  # where a page is of 2 MB


@pytest.mark.parametrize("error", [AttributeError, OSError, TypeError])
def test_other_c_libraries(monkeypatch, error):
    class Library:
        def __init__(self, name):
            if error is not AttributeError:
                raise error

    monkeypatch.setattr(ctypes, "CDLL", Library)
    assert heap.keep_freed_memory() is False


@pytest.mark.parametrize("refused", [-1, -4])
def test_a_c_library_that_refuses(monkeypatch, refused):
    class Library:
        def __init__(self, name):
            self.mallopt = lambda parameter, value: int(parameter != refused)

    monkeypatch.setattr(ctypes, "CDLL", Library)
    assert heap.keep_freed_memory() is False
