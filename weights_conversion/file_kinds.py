"""What a file is that is not a checkpoint, for error messages."""

from __future__ import annotations

import codecs
import contextlib
import pickletools
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

from vmb_d2.utils.files import is_web_page

# How files of other kinds begin -> what they are, and what to do
_BEGINNINGS = {
    b"version https://git-lfs": "a Git LFS pointer: `git lfs pull` fetches what it stands for",
    b"PK\x03\x04": "a zip file without its end: download or copy it again",
    b"\x1f\x8b": "a compressed file: unpack it with gunzip",
    b"BZh": "a compressed file: unpack it with bunzip2",
    b"\xfd7zXZ": "a compressed file: unpack it with unxz",
    b"\x89HDF": "an HDF5 file: give what torch.save wrote",
    b"\x93NUMPY": "a NumPy array: give what torch.save wrote",
}

# Texts that occur in pickles of other programs -> what they are, and what to do
_PICKLES = {
    "blobs": "a pickle of Caffe2's blobs: convert it with tools/c2_to_pt.py of "
    "vqa-maskrcnn-benchmark first (the released .pth of x101 is in PyTorch's format already)",
    "matching_heuristics": "a pickle of Detectron2's model zoo: give a checkpoint of VMB",
}


def other_kind(path: Path) -> str | None:
    """What a file is by its content, and what to do; None where that is not known.

    Nothing in the file is executed. Raises OSError.
    """
    if path.is_dir():
        return f"a folder of {_some(p.name for p in path.iterdir())}: give the checkpoint in it"
    with open(path, "rb") as file:
        head = file.read(4096)
    if not head:
        return "an empty file: download or copy it again"
    if is_web_page(head):
        return "a web page, as servers send in place of a file: download it again"
    if members := _members(path):
        if any(name.endswith("data.pkl") for name in members):
            return None
        return f"an archive of {_some(members)}: unpack it, and give the checkpoint in it"
    for beginning, kind in _BEGINNINGS.items():
        if head.startswith(beginning):
            return kind
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size:
        return "a safetensors file: write what safetensors.torch.load_file gives with torch.save"
    return _kind_of_pickle(path) or _kind_of_text(head)


def _some(names: Iterable[str]) -> str:
    """The first three names; those of checkpoints come first."""
    ordered = sorted(names, key=lambda name: (not name.endswith((".pth", ".pt", ".pkl")), name))
    return ", ".join(ordered[:3]) + (", ..." if len(ordered) > 3 else "")


def _members(path: Path) -> list[str]:
    """The files in an archive (of a tar up to ten); empty for other files."""
    names: list[str] = []
    with contextlib.suppress(Exception):  # a damaged archive
        if tarfile.is_tarfile(path):  # which can end with a zip file
            with tarfile.open(path) as archive:
                while len(names) < 10 and (member := archive.next()) is not None:
                    names.append(member.name)
        elif zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                names = [name for name in archive.namelist() if not name.endswith("/")]
    return names


def _kind_of_pickle(path: Path) -> str | None:
    some = False
    with contextlib.suppress(Exception), open(path, "rb") as file:  # it may be no pickle
        for opcode, argument, _ in pickletools.genops(file):
            if isinstance(argument, str) and opcode.name != "GLOBAL":
                some = True
                if kind := _PICKLES.get(argument):
                    return kind
    return "a pickle of another program: give a checkpoint of VMB" if some else None


def _kind_of_text(head: bytes) -> str | None:
    with contextlib.suppress(UnicodeDecodeError):
        text = codecs.getincrementaldecoder("utf-8")().decode(head)
        if all(c.isprintable() or c.isspace() for c in text):
            return f"a text that begins with {' '.join(text.split())[:40]!r}: give a checkpoint"
    return None
