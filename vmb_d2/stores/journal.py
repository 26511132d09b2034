"""What has to be done to a file so that it is in a whole state, as a file of its own."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable
from pathlib import Path

from ..errors import StoreError

_MAGIC = b"VMBJRNL1"
_HEAD = struct.Struct("<8sQ32s")  # magic, how many bytes follow, their SHA-256
_SIZE = struct.Struct("<Q")
_PATCH = struct.Struct("<QQ")  # offset, length; the content follows


def journal_path(path: Path) -> Path:
    """The journal of a file."""
    return path.with_name(f"{path.name}.journal")


def encode(size: int, patches: Iterable[tuple[int, bytes]]) -> bytes:
    """A journal: the size that the file gets, and (offset, content) of what is written over it."""
    parts = [_SIZE.pack(size)]
    for offset, content in patches:
        parts += [_PATCH.pack(offset, len(content)), content]
    body = b"".join(parts)
    return _HEAD.pack(_MAGIC, len(body), hashlib.sha256(body).digest()) + body


def decode(journal: bytes) -> tuple[int, list[tuple[int, bytes]]]:
    """The inverse of :func:`encode`. Raises StoreError for anything but a whole journal."""
    body = journal[_HEAD.size :]
    if journal[: _HEAD.size] != _HEAD.pack(_MAGIC, len(body), hashlib.sha256(body).digest()):
        raise StoreError("no whole journal")
    (size,), at, patches = _SIZE.unpack_from(body), _SIZE.size, []
    while at < len(body):
        offset, length = _PATCH.unpack_from(body, at)
        at += _PATCH.size + length
        patches.append((offset, body[at - length : at]))
    return size, patches
