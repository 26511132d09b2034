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

from ..errors import DownloadError, first_line
from .files import is_web_page
from .lease import lease_beside

RELEASES = "https://dl.fbaipublicfiles.com"  # of all files that were released for MMF
HUB = "https://huggingface.co"
# Servers -> the environment variables with which another one can be put in their place
_MIRRORS = {RELEASES: "VMB_D2_MIRROR", HUB: "HF_ENDPOINT"}

TIMEOUT_SECONDS = 20  # for each wait for the server


def cache_folder(given: str | Path | None = None) -> Path:
    """The folder given, or ``$VMB_D2_CACHE``, or ``~/.cache/vmb_d2``."""
    return Path(given or os.environ.get("VMB_D2_CACHE") or "~/.cache/vmb_d2").expanduser()


def mirrored(url: str) -> str:
    """``url`` at the mirror of its server, where there is one."""
    for server, variable in _MIRRORS.items():
        mirror = os.environ.get(variable)
        if mirror and url.startswith(f"{server}/"):
            return mirror.rstrip("/") + url.removeprefix(server)
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


def fetch_from_hub(repository: str, name: str, cache_dir: Path) -> Path:
    """The local copy of a file in a repository of Hugging Face's hub, downloaded if it isn't there.

    ``huggingface_hub``, where it is installed, downloads it into its own cache, with the user's
    token; else :func:`fetch` does, into ``cache_dir``.

    Args:
        repository: OWNER/NAME.
        name: of the file in the branch ``main``.
        cache_dir: it is made where it doesn't exist.

    Raises:
        DownloadError: with the repository and the file.
    """
    try:
        from huggingface_hub import hf_hub_download
    except ImportError:
        return fetch(_hub_url(repository, name), cache_dir)
    try:
        return Path(hf_hub_download(repository, name, endpoint=mirrored(f"{HUB}/").rstrip("/")))
    except (OSError, ValueError) as error:  # its errors are among these
        raise DownloadError(
            f"{repository}: {name} can't be downloaded from Hugging Face's hub "
            f"({first_line(error)})"
        ) from error


def there_from_hub(repository: str, name: str, cache_dir: Path) -> Path | None:
    """What :func:`fetch_from_hub` downloaded before; None where it did not."""
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        path = cached_path(_hub_url(repository, name), cache_dir)
        return path if path.is_file() else None
    found = try_to_load_from_cache(repository, name)
    return Path(found) if isinstance(found, str) else None


def _hub_url(repository: str, name: str) -> str:
    return f"{HUB}/{repository}/resolve/main/{name}"


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
