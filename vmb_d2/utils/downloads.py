"""Downloads into a cache, each file once.

The download itself is iopath's. torch.hub's takes a connection that ends early for the end of the
file unless a hash is given, and no hashes of the released files are published.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlparse

from iopath.common.download import download

from ..errors import DownloadError
from .files import is_web_page
from .lease import lease_beside

RELEASES = "https://dl.fbaipublicfiles.com"  # of all files that were released for MMF

TIMEOUT_SECONDS = 20  # for each wait for the server


def cache_folder(given: str | Path | None = None) -> Path:
    """The folder given, or ``$VMB_D2_CACHE``, or ``~/.cache/vmb_d2``."""
    return Path(given or os.environ.get("VMB_D2_CACHE") or "~/.cache/vmb_d2").expanduser()


def mirrored(url: str) -> str:
    """``url`` with ``$VMB_D2_MIRROR``, where it is set, in place of :data:`RELEASES`."""
    mirror = os.environ.get("VMB_D2_MIRROR")
    if mirror and url.startswith(f"{RELEASES}/"):
        return mirror.rstrip("/") + url.removeprefix(RELEASES)
    return url


def is_url(path: str | Path) -> bool:
    """Whether ``path`` is an http, https or ftp address."""
    return urlparse(str(path)).scheme in ("http", "https", "ftp")


def cached_path(url: str, cache_dir: Path) -> Path:
    """The local path of a download: by host, path and query of its URL."""
    parts = urlparse(url)
    folder, name = os.path.split(parts.path.lstrip("/"))
    if parts.query:
        name += "." + hashlib.sha256(parts.query.encode()).hexdigest()[:16]
    return cache_dir / "downloads" / parts.netloc.replace(":", "_") / folder / name


def fetch(url: str, cache_dir: Path) -> Path:
    """The local copy of ``url``, downloaded if it isn't there.

    One process at a time downloads a file, and others wait for it. The file is moved into place
    when it is complete.

    Args:
        url: below :data:`RELEASES` it is downloaded from the mirror, if there is one.
        cache_dir: it is made where it doesn't exist.

    Raises:
        DownloadError: with the URL and the path to which the file can be copied by hand.
    """
    target, source = cached_path(url, cache_dir), mirrored(url)
    if target.is_file():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with lease_beside(target).acquire(wait=True):
            with _socket_timeout():  # if another process has made it meanwhile, nothing is done
                download(source, str(target.parent), filename=target.name)
            with open(target, "rb") as file:
                if is_web_page(file.read(4096)):  # a login or an error page
                    target.unlink()
                    raise ValueError("a web page came in its place")
    except (OSError, HTTPException, ValueError) as error:  # urllib's errors are OSErrors
        raise DownloadError(
            f"{source}: can't be downloaded ({_reason(error)}); "
            f"with a copy from elsewhere, put it at {target}"
        ) from error
    return target


def _reason(error: Exception) -> str:
    if isinstance(error, HTTPError):
        return f"HTTP {error.code} {error.reason}"
    reason = getattr(error, "reason", error)
    return " ".join(str(getattr(reason, "strerror", None) or reason).split())


@contextlib.contextmanager
def _socket_timeout() -> Iterator[None]:
    """Within the block no wait is endless: urllib.request.urlretrieve takes no limit of its own."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
