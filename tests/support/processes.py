"""Processes of the tests."""

from pathlib import Path


def is_there(pid):
    """Whether a process runs; one that has ended and whose end wasn't noticed yet doesn't."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
