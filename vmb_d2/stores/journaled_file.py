"""A file that is in one of its committed states after every crash.

Beside the file ``x`` there can be a journal, ``x.journal``, with what brings the file to a
committed state: its size, and the content of ranges. Without a journal it is in one. A commit takes
these steps, each of them synced to the disk before the next begins:

1. Write a journal with the old size, and the old content of what is overwritten.
2. Write the new content.
3. Remove the journal.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import struct
from pathlib import Path

from ..errors import StoreError
from ..utils.files import check_in_place, sync_folder, write_at, write_whole

PAGE = 4096

_Patches = list[tuple[int, bytes]]  # offsets, and what is written there

_MAGIC = b"VMBJRNL1"
_HEAD = struct.Struct("<8sQ32s")  # magic, how many bytes follow, their SHA-256
_SIZE = struct.Struct("<Q")
_PATCH = struct.Struct("<QQ")  # offset, length; the content follows


def journal_path(path: Path) -> Path:
    """The journal of a file."""
    return path.with_name(f"{path.name}.journal")


def encode_journal(size: int, patches: _Patches) -> bytes:
    """A journal: the size that the file gets, and (offset, content) of what is written over it."""
    parts = [_SIZE.pack(size)]
    for offset, content in patches:
        parts += [_PATCH.pack(offset, len(content)), content]
    body = b"".join(parts)
    return _HEAD.pack(_MAGIC, len(body), hashlib.sha256(body).digest()) + body


def decode_journal(journal: bytes) -> tuple[int, _Patches]:
    """The inverse of :func:`encode_journal`. Raises StoreError for anything but a whole journal."""
    body = journal[_HEAD.size :]
    if journal[: _HEAD.size] != _HEAD.pack(_MAGIC, len(body), hashlib.sha256(body).digest()):
        raise StoreError("no whole journal")
    (size,), at, patches = _SIZE.unpack_from(body), _SIZE.size, []
    while at < len(body):
        offset, length = _PATCH.unpack_from(body, at)
        at += _PATCH.size + length
        patches.append((offset, body[at - length : at]))
    return size, patches


class JournaledFile(io.RawIOBase):
    """A binary file whose changes wait in memory for :meth:`commit`. Reading sees them.

    A commit that a crash interrupted is undone on opening.

    Args:
        path: of the file; it is made where there is none.
        writable: False: the file has to be there, and nothing is done on the disk.

    Raises:
        StoreError: the journal is damaged.
        OSError: from the disk. Apart from the opening, only :meth:`commit` writes to it.
    """

    _descriptor = -1  # closed

    def __init__(self, path: str | Path, writable: bool = True):
        super().__init__()
        self.path = Path(path)
        self._journal = journal_path(self.path)
        self._writable = writable
        self._position = 0
        self._pages: dict[int, bytearray] = {}  # what waits
        is_new = not self.path.exists()
        flags = os.O_RDWR | os.O_CREAT if writable else os.O_RDONLY
        self._descriptor = os.open(self.path, flags, 0o666)
        try:
            self._committed = self._size = os.fstat(self._descriptor).st_size
            if writable and is_new:
                self._journal.unlink(missing_ok=True)  # it is of a file that was deleted
                sync_folder(self.path.parent)
            self._recover()
        except BaseException:
            self.close()
            raise

    def _recover(self) -> None:
        try:
            size, patches = decode_journal(self._journal.read_bytes())
        except FileNotFoundError:
            return
        except StoreError as error:
            raise StoreError(f"{self._journal}: {error}, without which the file may be half") from (
                error
            )
        if self._writable:
            self._apply(size, patches)
            return
        self._committed, self._size = min(self._committed, size), size
        for offset, content in patches:
            self.seek(offset)
            self.write(content)
        self.seek(0)

    def commit(self) -> None:
        """Make the present content the one that a crash leaves.

        Raises OSError; then the file is in the old state, and is to be closed.
        """
        if not self._pages and self._size == self._committed:
            return
        check_in_place(os.fstat(self._descriptor), self.path)
        old, new = [], []
        for index, page in sorted(self._pages.items()):
            offset = index * PAGE
            if before := self._committed_page(index):
                old.append((offset, before))
            new.append((offset, bytes(page[: max(self._size - offset, 0)])))
        write_whole(self._journal, encode_journal(self._committed, old))
        sync_folder(self.path.parent)
        try:
            self._apply(self._size, new)
        except OSError:
            with contextlib.suppress(OSError):
                self._apply(self._committed, old)
            raise
        self._pages.clear()

    def _apply(self, size: int, patches: _Patches) -> None:
        """Bring the file to a state on the disk, and remove the journal. Raises OSError."""
        os.ftruncate(self._descriptor, size)
        for offset, content in patches:
            write_at(self._descriptor, content, offset)
        os.fsync(self._descriptor)
        self._journal.unlink()
        sync_folder(self.path.parent)
        self._committed = self._size = size

    def _committed_page(self, index: int) -> bytes:
        """What is committed of a page; less than a page at the end, and nothing behind it."""
        begin = index * PAGE
        return os.pread(self._descriptor, min(PAGE, max(self._committed - begin, 0)), begin)

    def _page(self, index: int) -> bytearray:
        """A page as it is now. What is changed in it waits once it is in ``_pages``."""
        page = self._pages.get(index)
        return bytearray(self._committed_page(index).ljust(PAGE, b"\0")) if page is None else page

    def readinto(self, buffer) -> int:
        into = memoryview(buffer).cast("B")
        rest = into = into[: max(self._size - self._position, 0)]
        while rest:
            index, at = divmod(self._position, PAGE)
            part = self._page(index)[at : at + len(rest)]
            rest[: len(part)] = part
            self._position += len(part)
            rest = rest[len(part) :]
        return len(into)

    def write(self, content) -> int:
        rest = memoryview(content).cast("B")
        written = len(rest)
        while rest:
            index, at = divmod(self._position, PAGE)
            part = rest[: PAGE - at]
            page = self._pages[index] = self._page(index)
            page[at : at + len(part)] = part
            self._position += len(part)
            rest = rest[len(part) :]
        self._size = max(self._size, self._position) if written else self._size
        return written

    def truncate(self, size: int | None = None) -> int:
        size = self._position if size is None else size
        # What is cut off reads as zeros, should the file grow again.
        for index in range(size // PAGE, -(-self._size // PAGE)):
            page = self._pages[index] = self._page(index)
            begin = max(size - index * PAGE, 0)
            page[begin:] = bytes(PAGE - begin)
        self._size = size
        return size

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = origin + offset
        return self._position

    def close(self) -> None:
        """Close the file. What was not committed is lost."""
        super().close()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
