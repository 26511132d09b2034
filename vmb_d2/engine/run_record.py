"""What a run leaves in writing: its settings compared and noted, how far it is, how it ended."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..output.foreign import ForeignImages, Vouched
from ..output.manifest import Manifest
from ..output.shards import Shard, shards_in
from ..utils.lease import Lease, LeaseLost
from .pipeline import Counts

logger = logging.getLogger(__name__)


class RunRecord:
    """The record of one run into an output folder, or of one shard's.

    The folder's manifest is that of a whole run. A shard has one of its own; what all shards have
    to agree in is in the folder's, written by the first of them.

    Args:
        folder: the output folder.
        shard: None for the whole run.
        lease: whose note is to tell how far the run is.
        images: how many the run, or its shard, is about.
        report: what became of them so far.
        allow_mismatch: accept settings that differ from those in writing.
        content: further plain values for the manifest.

    Raises OutputError where a manifest can't be read.
    """

    def __init__(
        self,
        folder: str | Path,
        shard: Shard | None,
        lease: Lease,
        images: int,
        report: Counts,
        *,
        allow_mismatch: bool = False,
        content: Mapping[str, Any] | None = None,
    ):
        self.folder = Path(folder)
        self.shard = shard
        self.own_folder = shard.folder(folder) if shard else self.folder
        self._common = Manifest(folder)
        self._own = Manifest(self.own_folder) if shard else self._common
        self._lease = lease
        self._images = images
        self._report = report
        self._allow_mismatch = allow_mismatch
        self._content = dict(content or {})
        self._counted = self._has_news = False
        if not self._own.content.get("runs"):  # else it has a begin, or nobody knows it
            with contextlib.suppress(OSError):  # the lease is lost, which shows later
                self._content["began"] = lease.path.stat().st_mtime
        self._started = time.monotonic()

    def vouched(self) -> Vouched | None:
        """Of which of the folder's files it tells; None where there is no record yet.

        A shard's own images are told of by its own runs and by those of the whole. Raises
        OutputError.
        """
        manifests = [self._common, self._own]
        if self.shard is None:
            manifests += [Manifest(shard.folder(self.folder)) for shard in shards_in(self.folder)]
        found = [m for m in manifests if m.vouched_until is not None]
        if not found:
            return None
        return Vouched(
            begin=min(m.content.get("began", 0.0) for m in found),
            end=max(m.vouched_until for m in found),
            died=any(m.content["runs"][-1].get("state") == "running" for m in found),
            known=self._own.content.get("foreign"),
        )

    def note_foreign(self, foreign: ForeignImages) -> None:
        """Write down, with what is written next, which images are taken that no run has made."""
        self._own.content["foreign"] = foreign.known
        self._has_news = foreign.has_news

    def require(self, settings: Mapping[str, Any]) -> list[str]:
        """The differences to the settings in writing. Raises OutputError where it has to."""
        found = []
        for manifest in (self._common, self._own) if self.shard else (self._own,):
            found += manifest.require(settings, self._allow_mismatch)
        return list(dict.fromkeys(found))

    @contextlib.contextmanager
    def kept(self, settings: Mapping[str, Any], stores: list[dict[str, Any]]) -> Iterator[None]:
        """Write down how the block ends; say how to go on where it had begun to extract.

        A shard is in writing from the beginning, since others wait for it; a whole run as of
        :meth:`begin`. A run that has lost its lease to another leaves the record to that one.

        Args:
            settings: as far as they are known now.
            stores: of the run.
        """
        self._content["stores"] = stores
        before, now = self._own.content.get("shard"), self._content.get("shard")
        if before and now and before != now:
            logger.warning(
                "%s: the input is not what it was, %d images then and %d now: some may have come "
                "into another shard, and be stored twice in formats with one file",
                self.own_folder,
                before["of_images"],
                now["of_images"],
            )
        extracting = False
        try:
            with self._own.recorded(self._outcome):
                if self.shard:
                    known = self._own.settings or dict(settings)
                    self._own.begin({}, settings=known, counts=self._counts(), **self._content)
                try:
                    yield
                finally:
                    extracting = self._own.has_begun
        except BaseException:
            if extracting:
                counts = self._counts()
                logger.info(
                    "stopped: %d of %d images are stored, %d failed; the same command, run "
                    "again, goes on from there",
                    counts["done"],
                    counts["images"],
                    counts["failed"],
                )
            raise

    def count(self, settings: Mapping[str, Any], pending: int) -> None:
        """The report tells what is there. A whole run with nothing to do is noted where the last
        one in writing didn't get so far, or images have come from elsewhere since.

        Args:
            settings: as far as they are known now.
            pending: how many images are to be extracted.

        Raises OutputError where it can't be written.
        """
        self._counted = True
        runs = self._own.content.get("runs")
        if pending or self.shard or not runs:
            return
        as_before = self._own.content.get("counts") == self._counts() and not self._has_news
        if runs[-1].get("state") != "finished" or not as_before:
            run = {"mismatch": self.require(settings)}
            self._own.begin(run, **self._content, settings=self._own.settings)

    def begin(self, settings: Mapping[str, Any], run: Mapping[str, Any]) -> None:
        """The model is loaded, extraction begins.

        Args:
            settings: all of them.
            run: on what it runs, for its entry in the manifest.

        Raises OutputError where other settings are in writing, or it can't be written.
        """
        if self.shard:
            self._common.claim(settings)
        run = {**run, "mismatch": self.require(settings)}
        settings = {**settings, "clip_boxes": self._own.clip_boxes | settings["clip_boxes"]}
        content = {**self._content, "settings": settings, "counts": self._counts()}
        if self.shard:
            self._own.note(run, **content)
        else:
            self._own.begin(run, **content)
        self._started = time.monotonic()

    def show(self, report: Counts) -> None:
        """Let others see how far it is. Raises OutputError where the run has lost its lease."""
        self._lease.require()
        self._lease.note = {
            **self._counts(),
            "extracted": report.extracted,
            "seconds": round(time.monotonic() - self._started, 3),
        }

    def _counts(self) -> dict[str, int]:
        if not self._counted and (before := self._own.content.get("counts")):
            return before
        done = self._report.skipped + self._report.extracted
        return {"images": self._images, "done": done, "failed": self._report.failed}

    def _outcome(self) -> tuple[dict[str, int], dict[str, Any]]:
        try:
            self._lease.require()
        except LeaseLost as error:
            if error.holder is not None:
                raise
        report = self._report
        return self._counts(), {
            "extracted": report.extracted,
            "failed": report.failed,
            "out_of_memory": report.out_of_memory,
        }
