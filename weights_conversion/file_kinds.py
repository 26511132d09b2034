"""What a file is that is not a checkpoint, for error messages."""

from __future__ import annotations

import contextlib
import pickle
import tarfile
import zipfile
from pathlib import Path

from vmb_d2.utils.files import is_web_page

# How files of other kinds begin -> what they are, and what to do
_BEGINNINGS = {
    b"version https://git-lfs": "a Git LFS pointer: `git lfs pull` fetches what it stands for",
    b"\x1f\x8b": "a compressed file: unpack it, and give the checkpoint in it",
}

# The number with which files of torch.save's old format begin, pickled, without the protocol
_TORCH_NUMBER = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)[2:]


def other_kind(path: Path) -> str | None:
    """What a file is by its content, and what to do; None where that is not known.

    Nothing in the file is executed. Raises OSError.
    """
    with open(path, "rb") as file:
        head = file.read(4096)
    if is_web_page(head):
        return "a web page, as servers send in place of a file: download it again"
    for beginning, kind in _BEGINNINGS.items():
        if head.startswith(beginning):
            return kind
    if _is_archive(path):
        return "an archive: unpack it, and give the checkpoint in it"
    return None


def is_plain_pickle(path: str | Path) -> bool:
    """Whether a file is a pickle that torch.save has not written. Raises OSError."""
    with open(path, "rb") as file:
        head = file.read(64)
    return head.startswith(b"\x80") and _TORCH_NUMBER not in head


def _is_archive(path: Path) -> bool:
    """Whether a file is a tar, or a zip that torch.save has not written."""
    if tarfile.is_tarfile(path):  # first: a tar can end with a zip file
        return True
    with contextlib.suppress(Exception), zipfile.ZipFile(path) as archive:  # or it is damaged
        return not any(name.endswith("data.pkl") for name in archive.namelist())
    return False
