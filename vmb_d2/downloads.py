"""Fetching a file by URL into a cache, once."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
from pathlib import Path
from urllib.error import ContentTooShortError, HTTPError
from urllib.parse import urlparse

from iopath.common.file_io import HTTPURLHandler, PathManager

from .errors import DownloadError

ATTEMPTS = 3
STALL_SECONDS = 60

logger = logging.getLogger(__name__)


def default_cache_dir() -> Path:
    """``$VMB_D2_CACHE``, or ``~/.cache/vmb_d2``."""
    return Path(os.environ.get("VMB_D2_CACHE") or "~/.cache/vmb_d2").expanduser()


def is_url(path: str | Path) -> bool:
    """Whether ``path`` is an http, https or ftp address."""
    return urlparse(str(path)).scheme in ("http", "https", "ftp")


def cached_path(url: str, cache_dir: Path) -> Path:
    """Where :func:`fetch` keeps the file: by host and path of its URL, as iopath names it."""
    folder = os.path.dirname(urlparse(url).path.lstrip("/"))
    return _host_folder(url, cache_dir) / folder / url.split("/")[-1]


def _host_folder(url: str, cache_dir: Path) -> Path:
    return cache_dir / "downloads" / urlparse(url).netloc.replace(":", "_")


def fetch(url: str, cache_dir: Path) -> Path:
    """The local copy of ``url``, downloaded if it isn't there.

    iopath shows the progress, lets one process at a time download a file, and moves it into place
    when it is whole. A connection that breaks or stalls is tried again from the start.

    Raises:
        DownloadError: with the URL and the path to which the file can be brought by hand.
    """
    target = cached_path(url, cache_dir)
    if target.is_file():
        return target
    manager = PathManager()
    manager.register_handler(HTTPURLHandler())
    root = _host_folder(url, cache_dir)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _require_writable(root)
            with _stall_timeout(STALL_SECONDS):
                return Path(manager.get_local_path(url, cache_dir=str(root)))
        except OSError as error:  # urllib's errors are OSErrors
            broken = isinstance(error, (ContentTooShortError, ConnectionError, TimeoutError))
            if broken and attempt < ATTEMPTS:
                logger.warning("%s: broken off (%s), trying again", url, _reason(error))
                continue
            raise DownloadError(
                f"{url}: can't be downloaded ({_reason(error)}); "
                f"with a copy from elsewhere, put it at {target}"
            ) from error
    raise AssertionError("unreachable")


def _require_writable(folder: Path) -> None:
    """Make the folder. iopath would turn to a folder under /tmp that other users share."""
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        raise PermissionError(errno.EACCES, f"{folder} is not writable")


def _reason(error: OSError) -> str:
    if isinstance(error, HTTPError):
        return f"HTTP {error.code} {error.reason}"
    reason = getattr(error, "reason", error)
    return " ".join(str(getattr(reason, "strerror", None) or reason).split())


@contextlib.contextmanager
def _stall_timeout(seconds: float):
    """Let a silent connection fail. urllib.request.urlretrieve takes no timeout of its own."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
