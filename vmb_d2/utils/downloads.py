"""Fetching a file by URL into a cache, once."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import socket
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from urllib.error import ContentTooShortError, HTTPError
from urllib.parse import urlparse

from iopath.common.download import download

from ..errors import DownloadError
from ..utils.files import is_web_page
from ..utils.lease import LeaseHeld, lease_beside

RELEASES = "https://dl.fbaipublicfiles.com"  # what was released for MMF is below it

ATTEMPTS = 3
STALL_SECONDS = 60

logger = logging.getLogger(__name__)


def default_cache_dir() -> Path:
    """``$VMB_D2_CACHE``, or ``~/.cache/vmb_d2``."""
    return Path(os.environ.get("VMB_D2_CACHE") or "~/.cache/vmb_d2").expanduser()


def cache_folder(given: str | Path | None) -> Path:
    """The folder given, or :func:`default_cache_dir`."""
    return Path(given).expanduser() if given else default_cache_dir()


def mirrored(url: str) -> str:
    """Where ``url`` is fetched from: ``$VMB_D2_MIRROR`` may stand in for :data:`RELEASES`."""
    mirror = os.environ.get("VMB_D2_MIRROR")
    if mirror and url.startswith(f"{RELEASES}/"):
        return mirror.rstrip("/") + url.removeprefix(RELEASES)
    return url


def is_url(path: str | Path) -> bool:
    """Whether ``path`` is an http, https or ftp address."""
    return urlparse(str(path)).scheme in ("http", "https", "ftp")


def cached_path(url: str, cache_dir: Path) -> Path:
    """Where :func:`fetch` keeps the file: by host, path and query of its URL."""
    parts = urlparse(url)
    folder, name = os.path.split(parts.path.lstrip("/"))
    if parts.query:
        name += "." + hashlib.sha256(parts.query.encode()).hexdigest()[:16]
    return cache_dir / "downloads" / parts.netloc.replace(":", "_") / folder / name


def fetch(url: str, cache_dir: Path, patiently: bool = True) -> Path:
    """The local copy of ``url``, downloaded if it isn't there.

    One process at a time downloads a file; others wait for it. It is moved into place when it is
    whole.

    Args:
        url: of :data:`RELEASES` it is fetched from the mirror, if there is one.
        cache_dir: needn't be there.
        patiently: try again, from the start, where a connection breaks or stalls for a minute.
            Otherwise the first failure, after 10 s of silence, is the last one, also for those who
            waited for the process that had it.

    Raises:
        DownloadError: with the URL and the path to which the file can be brought by hand.
    """
    target, source = cached_path(url, cache_dir), mirrored(url)
    if target.is_file():
        return target
    for attempts_left in reversed(range(ATTEMPTS if patiently else 1)):
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with _turn(target) as waited:
                if waited and not (patiently or target.is_file()):
                    raise ValueError("another process could not, either")
                with _stall_timeout(STALL_SECONDS if patiently else 10):
                    download(source, str(target.parent), filename=target.name)
                _refuse_web_page(target)
            return target
        except (OSError, HTTPException, ValueError) as error:  # urllib's errors are OSErrors
            broken = isinstance(error, (ContentTooShortError, ConnectionError, TimeoutError))
            if broken and attempts_left:
                logger.warning("%s: broken off (%s), trying again", source, _reason(error))
                continue
            raise DownloadError(
                f"{source}: can't be downloaded ({_reason(error)}); "
                f"with a copy from elsewhere, put it at {target}"
            ) from error
    raise AssertionError("unreachable")


@contextlib.contextmanager
def _turn(target: Path) -> Iterator[bool]:
    """The sole right to make ``target``. Gives whether another process had it before."""
    lease, waited = lease_beside(target), False
    try:
        lease.acquire()
    except LeaseHeld:
        lease.acquire(wait=True)
        waited = True
    with lease:
        yield waited


def _refuse_web_page(path: Path) -> None:
    """Remove what a login or error page left behind in place of a file. Raises ValueError."""
    with open(path, "rb") as file:
        if not is_web_page(file.read(4096)):
            return
    path.unlink()
    raise ValueError("a web page came in its place")


def _reason(error: Exception) -> str:
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
