"""A file that is in one of its committed states after every crash.

Beside the file ``x`` there can be a journal, ``x.journal``, with the steps that bring the file to a
committed state; without a journal it is in one. A commit takes these steps, each of them synced to
the disk before the next begins:

1. Write a journal: truncate the file to its old size.
2. Append what is new beyond the old size.
3. Write a journal: set the file's new size, and overwrite these ranges.
4. Do that, and remove the journal.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import itertools
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

    A commit that a crash interrupted is finished or undone on opening.

    Args:
        path: of the file; it is made where there is none.
        writable: False: the file has to be there, and nothing is done on the disk.

    Raises:
        StoreError: the journal is damaged, or of another file.
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
        if self._committed < size:
            raise StoreError(f"{self._journal}: is no journal of the file beside it")
        if self._writable:
            self._carry_out(size, patches)
            return
        self._committed = self._size = size
        for offset, content in patches:
            self.seek(offset)
            self.write(content)
        self.seek(0)

    def commit(self) -> None:
        """Make the present content the one that a crash leaves.

        Raises OSError; then the file is in the old state or in the new one, and is to be closed.
        """
        patches, appended = self._changes()
        if not patches and self._size == self._committed:
            return
        check_in_place(os.fstat(self._descriptor), self.path)
        try:
            if self._size > self._committed:
                write_whole(self._journal, encode_journal(self._committed, []))
                sync_folder(self.path.parent)
                for offset, content in appended:
                    write_at(self._descriptor, content, offset)
                os.ftruncate(self._descriptor, self._size)
                os.fsync(self._descriptor)
            write_whole(self._journal, encode_journal(self._size, patches))
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._committed)
                os.fsync(self._descriptor)
                self._journal.unlink(missing_ok=True)
            raise
        sync_folder(self.path.parent)
        self._carry_out(self._size, patches)
        self._pages.clear()

    def _carry_out(self, size: int, patches: _Patches) -> None:
        """Apply the journal, and remove it."""
        os.ftruncate(self._descriptor, size)
        for offset, content in patches:
            write_at(self._descriptor, content, offset)
        os.fsync(self._descriptor)
        self._journal.unlink()
        sync_folder(self.path.parent)
        self._committed = self._size = size

    def _changes(self) -> tuple[_Patches, _Patches]:
        """What waits, in ranges as long as possible: below the committed size, and beyond it."""
        patches, appended = [], []
        inside = sorted(index for index in self._pages if index * PAGE < self._size)
        # Successive pages have the same difference of index and rank.
        for _, pages in itertools.groupby(enumerate(inside), lambda pair: pair[1] - pair[0]):
            indices = [index for _, index in pages]
            offset = indices[0] * PAGE
            content = b"".join(map(self._pages.__getitem__, indices))[: self._size - offset]
            below = min(max(self._committed - offset, 0), len(content))
            if below:
                patches.append((offset, content[:below]))
            if below < len(content):
                appended.append((offset + below, content[below:]))
        return patches, appended

    def _page(self, index: int) -> bytearray:
        """A page to be changed."""
        page = self._pages.get(index)
        if page is None:
            page = bytearray(PAGE)
            self._read_committed(index * PAGE, memoryview(page))
            self._pages[index] = page
        return page

    def _read_committed(self, begin: int, into: memoryview) -> None:
        """Read committed content; what lies beyond it stays as it is."""
        into = into[: max(self._committed - begin, 0)]
        while into:
            count = os.preadv(self._descriptor, [into], begin)
            if not count:
                raise OSError(errno.EIO, "is shorter than it was", str(self.path))
            into, begin = into[count:], begin + count

    def readinto(self, buffer) -> int:
        into = memoryview(buffer).cast("B")
        into = into[: max(self._size - self._position, 0)]
        begin, end = self._position, self._position + len(into)
        into[:] = bytes(len(into))
        self._read_committed(begin, into)
        for index in range(begin // PAGE, -(-end // PAGE)):
            if index in self._pages:
                first, last = max(index * PAGE, begin), min((index + 1) * PAGE, end)
                page = memoryview(self._pages[index])
                into[first - begin : last - begin] = page[
                    first - index * PAGE : last - index * PAGE
                ]
        self._position = end
        return len(into)

    def write(self, content) -> int:
        rest = memoryview(content).cast("B")
        written = len(rest)
        while rest:
            index, at = divmod(self._position, PAGE)
            part = rest[: PAGE - at]
            self._page(index)[at : at + len(part)] = part
            self._position += len(part)
            rest = rest[len(part) :]
        self._size = max(self._size, self._position) if written else self._size
        return written

    def truncate(self, size: int | None = None) -> int:
        size = self._position if size is None else size
        # What is cut off reads as zeros, should the file grow again.
        for index in range(size // PAGE, -(-self._size // PAGE)):
            page, begin = self._page(index), max(size - index * PAGE, 0)
            page[begin:] = bytes(PAGE - begin)
        self._size = size
        return size

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        if origin + offset < 0:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        self._position = origin + offset
        return self._position

    def close(self) -> None:
        """Close the file. What was not committed is lost."""
        super().close()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
