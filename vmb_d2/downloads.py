"""Fetching a file by URL into a cache, once."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from pathlib import Path
from urllib.error import ContentTooShortError, HTTPError
from urllib.parse import urlparse

from iopath.common.download import download

from .errors import DownloadError
from .lease import lease_beside

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
    """Where :func:`fetch` keeps the file: by host and path of its URL."""
    parts = urlparse(url)
    folder = os.path.dirname(parts.path.lstrip("/"))
    return cache_dir / "downloads" / parts.netloc.replace(":", "_") / folder / url.split("/")[-1]


def fetch(url: str, cache_dir: Path) -> Path:
    """The local copy of ``url``, downloaded if it isn't there.

    One process at a time downloads a file; others wait for it. It is moved into place when it is
    whole. A connection that breaks or stalls is tried again from the start.

    Raises:
        DownloadError: with the URL and the path to which the file can be brought by hand.
    """
    target = cached_path(url, cache_dir)
    if target.is_file():
        return target
    for attempt in range(1, ATTEMPTS + 1):
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with lease_beside(target).acquire(wait=True), _stall_timeout(STALL_SECONDS):
                download(url, str(target.parent), filename=target.name)
            return target
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
