"""How far a run is: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
from collections.abc import Iterator

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

LINE_SECONDS = 30

logger = logging.getLogger(__name__)


class Progress(tqdm):
    """tqdm's bar on stderr, with the number of failed images."""

    failed = 0

    def show(self, done: int, failed: int) -> None:
        """Set how many images are done, and how many failed."""
        if failed != self.failed:
            self.failed = failed
            self.set_postfix(failed=failed, refresh=False)
        self.update(done + failed - self.n)


class _Lines(Progress):
    """A line of the log at the first image, about every 30 seconds, and at the end."""

    _shown: float = 0

    def show(self, done: int, failed: int) -> None:
        super().show(done, failed)
        if not self._shown and self.n:
            self.refresh()

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        if self.n == self._shown:
            return
        self._shown = self.n
        elapsed = self.format_dict["elapsed"]
        rate = self.n / elapsed if elapsed else 0.0
        speed = f"{rate:.2f} images/s" if rate >= 1 or not rate else f"{1 / rate:.1f} s/image"
        left = self.format_interval((self.total - self.n) / rate) if rate else "?"
        words = "%d of %d images, %d failed, %s, %s left"
        logger.info(words, self.n, self.total, self.failed, speed, left)


@contextlib.contextmanager
def progress_of(total: int) -> Iterator[Progress]:
    """The progress over ``total`` images, shown on a terminal as a bar and elsewhere as lines."""
    if sys.stderr.isatty():
        bar = Progress(total=total, unit="image", dynamic_ncols=True)
        with logging_redirect_tqdm(), bar:
            yield bar
    else:
        nowhere = io.StringIO()
        with _Lines(total=total, file=nowhere, mininterval=LINE_SECONDS, miniters=1) as lines:
            yield lines
