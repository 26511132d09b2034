"""``manifest.json``: what an output folder holds, and how it came about."""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import json
import os
import platform
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import OutputError, first_line
from ..utils import interruption
from ..utils.files import write_new, write_whole
from ..utils.lease import job_name
from ..version import __version__

FILE_NAME = "manifest.json"
MOST_RUNS = 100  # remembered
_EARLIER = {"precision": "fp32"}  # of folders that were written before there was a choice
_PACKAGES = ("torch", "torchvision", "numpy", "opencv-python-headless", "opencv-python", "pillow")
_DETECTRON2 = ("detectron2", "pb1-detectron2")


class Manifest:
    """The manifest of one output folder.

    Attributes:
        content: what the file holds: ``settings``, all that changes features; ``configuration``,
            the whole of it, of the last run; ``stores``; ``counts``; ``runs``, the last ones.

    Args:
        folder: the output folder. Without a manifest in it, the content is empty.

    Raises:
        OutputError: the file can't be read or isn't a manifest.
    """

    def __init__(self, folder: str | Path):
        self.path = Path(folder) / FILE_NAME
        self.content: dict[str, Any] = {}
        self._started: float | None = None
        self._changed = 0.0
        try:
            content = json.loads(self.path.read_bytes())
            self._changed = self.path.stat().st_mtime
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise OutputError(f"{self.path}: can't be read: {reason}") from error
        if not isinstance(content, dict) or not isinstance(content.get("settings"), dict):
            raise OutputError(f"{self.path}: is no manifest")
        self.content = content

    @property
    def settings(self) -> dict[str, Any]:
        """All that changes features, as nested plain values; empty where nothing is known."""
        known = self.content.get("settings")
        return {**_EARLIER, **known, "clip_boxes": self.clip_boxes} if known else {}

    @property
    def clip_boxes(self) -> dict[str, bool]:
        """Of each format that is known to be there, whether its boxes are clipped to the image."""
        stores = self.content.get("stores", ())
        of_stores = {s.get("format"): s.get("boxes_clipped", False) for s in stores}
        return {**of_stores, **self.content.get("settings", {}).get("clip_boxes", {})}

    @property
    def vouched_until(self) -> float | None:
        """The time of files up to which the runs tell of all that is in the folder.

        None where none of them had begun to extract, or had nothing to extract.
        """
        last = (self.content.get("runs") or [{}])[-1]
        if "device" in last or last.get("state") == "finished":
            return self._changed
        return self.content.get("vouched_until")

    @property
    def has_begun(self) -> bool:
        """Whether this process has noted a run that hasn't ended."""
        return self._started is not None

    def require(self, settings: Mapping[str, Any], allow_mismatch: bool = False) -> list[str]:
        """Raise OutputError where ``settings`` disagree with the folder's, saying in what.

        Settings that are None, or that only one of the two has, are not compared. Returns the
        differences where they are allowed.
        """
        found = differences(self.settings, settings)
        if found and not allow_mismatch:
            raise OutputError(
                f"{self.path.parent} holds features of other settings: {'; '.join(found)}. Take "
                "another folder, or add to this one nevertheless: output.allow_mismatch=true"
            )
        return found

    def claim(self, settings: Mapping[str, Any]) -> None:
        """Note the settings of a folder that has no manifest yet, whoever of several is first.

        Then ``content`` is what the first one noted. Raises OutputError.
        """
        if self.content:
            return
        text = json.dumps({"format": 1, "settings": settings, "stores": [], "runs": []}, indent=2)
        try:
            write_new(self.path, text.encode("ascii") + b"\n")
        except FileExistsError:
            pass
        except OSError as error:
            raise OutputError(f"{self.path}: can't be written: {error.strerror}") from error
        self.content = Manifest(self.path.parent).content

    def begin(self, run: Mapping[str, Any], **content: Any) -> None:
        """Note that a run has begun, and what holds from now on. Raises OutputError."""
        until = self.vouched_until
        runs = self.content.get("runs", [])
        for earlier in runs:
            if earlier.get("state") == "running":  # it can't be, two would not get the lease
                earlier["state"] = "died"
        self._started = time.monotonic()
        runs.append({"state": "running", "started": _now(), **_surroundings(), **run})
        self.content = {
            "format": 1,
            **self.content,
            **content,
            "vouched_until": until,
            "runs": runs[-MOST_RUNS:],
        }
        self._write()

    def note(self, run: Mapping[str, Any], **content: Any) -> None:
        """Add to what :meth:`begin` noted. Raises OutputError."""
        self.content["runs"][-1].update(run)
        self.content.update(content)
        self._write()

    def end(self, state: str, counts: Mapping[str, int], run: Mapping[str, Any]) -> None:
        """Note how the run ended: finished, interrupted or failed. Raises OutputError."""
        seconds = round(time.monotonic() - self._started, 3)
        self._started = None
        self.content["runs"][-1].update(state=state, ended=_now(), seconds=seconds, **run)
        self.content["counts"] = dict(counts)
        self._write()

    @contextlib.contextmanager
    def recorded(self, outcome: Callable[[], tuple[dict, dict]]) -> Iterator[None]:
        """Note how the block ends: ``finished``, ``interrupted`` or ``failed``.

        Args:
            outcome: gives the counts and what to add to the run's entry. It is not asked where no
                run has begun in the block.

        Raises OutputError; after an error in the block, which says more, it is left out.
        """
        state, error = "finished", None
        try:
            yield
        except Exception as raised:
            state, error = "failed", first_line(raised)
            raise
        except BaseException:  # Ctrl-C, or a cluster's launcher that takes the machine away
            state = "interrupted"
            raise
        finally:
            ignored = () if state == "finished" else OutputError
            if self.has_begun:
                with interruption.held(), contextlib.suppress(ignored):
                    counts, run = outcome()
                    self.end(state, counts, {**run, "error": error} if error else run)

    def _write(self) -> None:
        text = json.dumps(self.content, indent=2, ensure_ascii=True)
        try:
            write_whole(self.path, text.encode("ascii") + b"\n")
        except OSError as error:
            raise OutputError(f"{self.path}: can't be written: {error.strerror}") from error


def differences(there: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """``key: value there, value now`` for each setting that both have and that differs."""
    found = []
    for key in (k for k in there if k in now):
        a, b = there[key], now[key]
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += differences(a, b, f"{prefix}{key}.")
        elif a is not None and b is not None and _plain(a) != _plain(b):
            found.append(f"{prefix}{key}: {_short(a)} there, {_short(b)} now")
    return found


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:16]}..."


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def _surroundings() -> dict[str, Any]:
    versions = {"vmb_d2": __version__, "python": platform.python_version()}
    for package in (*_PACKAGES, *_DETECTRON2):
        try:
            versions[package.removeprefix("pb1-")] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    found = {"host": socket.gethostname(), "pid": os.getpid(), "versions": versions}
    if job := job_name(os.environ):
        found["job"] = job
    if (devices := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        found["cuda_visible_devices"] = devices
    return found
