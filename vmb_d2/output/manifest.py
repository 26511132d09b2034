"""``manifest.json``: what an output folder holds, and the record of the runs that wrote it."""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import json
import math
import os
import platform
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..config.vmb_model import EXCLUSIVE_BOXES, MMF_NAMED
from ..errors import OutputError, first_line
from ..stores.base import output_errors
from ..structures.class_names import NONE
from ..utils.files import write_whole
from ..utils.lease import job_name, lease_beside
from ..version import __version__
from .shards import Shard, shards_in

FILE_NAME = "manifest.json"
MOST_RUNS = 100  # in the file
_PACKAGES = (
    *("torch", "torchvision", "numpy", "opencv-python-headless", "opencv-python", "pillow"),
    *("detectron2", "pb1-detectron2"),
)


class Manifest:
    """The manifest of an output folder, or that of one of its shards.

    A run is recorded by :meth:`begin`, :meth:`update` and :meth:`recorded`. Each writes the file,
    and raises OutputError where it can't be written.

    Args:
        folder: the output folder. Where there is no manifest yet, the content is empty.
        shard: whose manifest it is; None for the folder's. The settings that all shards share are
            also in the folder's manifest.

    Attributes:
        folder: the folder that the file is in.
        content: what the file holds, see docs/running.md.

    Raises:
        OutputError: the file can't be read or isn't a manifest.
    """

    def __init__(self, folder: str | Path, shard: Shard | None = None):
        self.folder = shard.folder(folder) if shard else Path(folder)
        self.path = self.folder / FILE_NAME
        self.content: dict[str, Any] = {}
        self._shared = Manifest(folder) if shard else None
        self._changed = 0.0
        self._started = 0.0  # of the run that has begun and not ended; else 0
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
        return {**known, "clip_boxes": self.clip_boxes} if known else {}

    @property
    def clip_boxes(self) -> dict[str, bool]:
        """By format, whether boxes are clipped to the image."""
        stores = self.content.get("stores", ())
        of_stores = {s.get("format"): s.get("boxes_clipped", False) for s in stores}
        return {**of_stores, **self.content.get("settings", {}).get("clip_boxes", {})}

    @property
    def runs(self) -> list[dict[str, Any]]:
        """The records of the last runs."""
        return self.content.get("runs", [])

    @property
    def vouched_until(self) -> float | None:
        """The time up to which the runs vouch for the folder's files, in seconds since 1970.

        None where no run had begun to extract, or found that all images are there.
        """
        last = self.runs[-1] if self.runs else {}
        if "device" in last or last.get("state") == "finished":
            return self._changed
        return self.content.get("vouched_until")

    @property
    def _died(self) -> bool:
        """Whether the last run died while it extracted: what is newer is taken for its own."""
        last = self.runs[-1] if self.runs else {}
        return "device" in last and last.get("state") == "running" and not self.has_begun

    def vouched(self) -> tuple[float, float] | None:
        """Between which times the files that the records vouch for were last changed.

        In seconds since 1970; None where there is no record yet. For a shard's images it is told by
        its own records and the whole folder's. Raises OutputError.
        """
        if self._shared is not None:
            manifests = [self._shared, self]
        else:
            shards = shards_in(self.folder)
            manifests = [self, *(Manifest(self.folder, shard) for shard in shards)]
        manifests = [m for m in manifests if m.vouched_until is not None]
        if not manifests:
            return None
        ends = [math.inf if m._died else m.vouched_until or 0.0 for m in manifests]
        return min(m.content.get("began", 0.0) for m in manifests), max(ends)

    def require(self, settings: Mapping[str, Any], allow_mismatch: bool = False) -> list[str]:
        """Raise OutputError where ``settings`` differ from those of the folder or the shard.

        Settings that are None, or that only one of the two has, are not compared. Returns the
        differences where they are allowed.
        """
        found = self._shared.require(settings, allow_mismatch) if self._shared else []
        own = differences(self.settings, settings)
        if own and not allow_mismatch:
            raise OutputError(
                f"{self.folder} holds features of other settings: {'; '.join(own)}. Take another "
                "folder, or add to this one nevertheless: `allow_mismatch`=true"
            )
        return list(dict.fromkeys([*found, *own]))

    def share(self, settings: Mapping[str, Any]) -> None:
        """Write a shard's settings into the folder's manifest, unless there is one already.

        Of several shards that do this at the same time, the first one writes them; those of the
        others are compared with them by :meth:`require`. Raises OutputError.
        """
        if self._shared is None or self._shared.content:
            return
        path = self._shared.path
        with output_errors(path, "can't be written"), lease_beside(path).acquire(wait=True):
            self._shared = Manifest(path.parent)
            if not self._shared.content:
                self._shared.content = {"format": 1, "settings": settings, "stores": [], "runs": []}
                self._shared._write()

    @property
    def has_begun(self) -> bool:
        """Whether a run of this process has begun and not ended."""
        return self._started > 0

    def begin(self, run: Mapping[str, Any], **content: Any) -> None:
        """Record that a run begins.

        Args:
            run: values of the run's record.
            **content: values of the file's other keys.
        """
        if self._died:  # what it wrote is older than now, by the clock of the file system
            with output_errors(self.path, "can't be written"):
                os.utime(self.path)
                self._changed = self.path.stat().st_mtime
        content["vouched_until"] = self.vouched_until
        for earlier in self.runs:
            if earlier.get("state") == "running":  # with this process' lease, it isn't
                earlier["state"] = "died"
        record = {"state": "running", "started": _now(), **_surroundings(), **run}
        self.content = {"format": 1, **self.content, **content}
        self.content["runs"] = [*self.runs, record][-MOST_RUNS:]
        self._started = time.monotonic()
        self._write()

    def update(self, run: Mapping[str, Any], **content: Any) -> None:
        """Add to the record of the run that has begun; arguments as for :meth:`begin`."""
        self.runs[-1].update(run)
        self.content.update(content)
        self._write()

    @contextlib.contextmanager
    def recorded(self, outcome: Callable[[], tuple[dict, dict]]) -> Iterator[None]:
        """End the run as the block ends, where it has begun by then.

        Args:
            outcome: gives the counts and further values for the run's record. What it raises ends
                the block, and nothing is recorded.

        Raises OutputError where the end can't be recorded, unless the block raised an error.
        """
        state, error = "finished", None
        try:
            yield
        except Exception as raised:
            state, error = "failed", first_line(raised)
            raise
        except BaseException:  # Ctrl-C, or a cluster that takes the machine away
            state = "interrupted"
            raise
        finally:
            if self.has_begun:
                with contextlib.suppress(*([] if state == "finished" else [OutputError])):
                    counts, run = outcome()
                    seconds = round(time.monotonic() - self._started, 3)
                    run = {"state": state, "ended": _now(), "seconds": seconds, **run}
                    if error:
                        run["error"] = error
                    self._started = 0.0
                    self.update(run, counts=counts)

    def _write(self) -> None:
        with output_errors(self.path, "can't be written"):
            write_whole(self.path, json.dumps(self.content, indent=2).encode("ascii") + b"\n")


def read_manifest(folder: str | Path) -> tuple[dict[str, Any], str | None]:
    """The content of a folder's manifest, and why it can't be read: empty, or None, where there is
    no such thing."""
    try:
        return Manifest(folder).content, None
    except OutputError as error:
        return {}, str(error)


def has_inclusive_boxes(path: str | Path) -> bool:
    """Whether (x2, y2) of a store's boxes is a box's last pixel, by the record of its making.

    It is where there is no record. ``path``: the store, or the output folder.
    """
    return _recorded_model(path).get("box_convention") not in EXCLUSIVE_BOXES


def recorded_names(path: str | Path) -> dict[str, str | None]:
    """The files of the names of a store's classes and attributes, by the record of its making.

    Args:
        path: of the store, or of the output folder.

    Returns:
        ``class_names`` and ``attribute_names``: a path; :data:`NONE` where nothing but the classes'
        numbers is known of a model other than VMB's; None for MMF's file, and for no attributes.
    """
    convention = _recorded_model(path).get("box_convention", MMF_NAMED)
    names = {"class_names": None if convention == MMF_NAMED else NONE, "attribute_names": None}
    stores = [store for content in _records(path) for store in content.get("stores", ())]
    for store in reversed(stores):  # of several records the first one counts
        names |= {key: store[key] for key in names if store.get(key)}
    return names


def _recorded_model(path: str | Path) -> dict[str, Any]:
    found = (content.get("settings", {}).get("model") for content in _records(path))
    return next(filter(None, found), {})


def _records(path: str | Path) -> Iterator[dict[str, Any]]:
    """The contents of the manifests of a store or of an output folder, then of its shards'."""
    for folder in (Path(path), *Path(path).absolute().parents[:2]):
        if folder.is_dir() and (content := read_manifest(folder)[0]):
            yield content
            with contextlib.suppress(OutputError):
                for shard in shards_in(folder):
                    yield read_manifest(shard.folder(folder))[0]
            return


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
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package.removeprefix("pb1-")] = importlib.metadata.version(package)
    found = {"host": socket.gethostname(), "pid": os.getpid(), "versions": versions}
    if job := job_name(os.environ):
        found["job"] = job
    if (devices := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        found["cuda_visible_devices"] = devices
    return found
