"""How far a run is: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

LINE_SECONDS = 30

logger = logging.getLogger(__name__)


class Progress:
    """Counts images, done or failed, and shows rate, time left and failures.

    A context manager. On a terminal it is tqdm's bar on stderr; elsewhere a line goes to the log
    at the first image, then about every ``line_seconds``, and at the end. For several threads.

    Args:
        total: images to do.
        terminal: None to find out.
        line_seconds: see above.
    """

    def __init__(
        self, total: int, terminal: bool | None = None, line_seconds: float = LINE_SECONDS
    ):
        self.total = total
        self.count = self.failed = 0
        self.line_seconds = line_seconds
        if terminal is None:
            terminal = sys.stderr.isatty()
        self._bar = tqdm(total=total, unit="image", dynamic_ncols=True) if terminal else None
        self._stack = contextlib.ExitStack()
        self._begin = time.monotonic()
        self._last_line = float("-inf")
        self._last_count = None
        self._lock = threading.Lock()

    def __enter__(self) -> Progress:
        if self._bar is not None:
            self._stack.enter_context(logging_redirect_tqdm())
        return self

    def __exit__(self, *exception) -> None:
        if self._bar is None:
            self._line()
        else:
            self._bar.close()
        self._stack.close()

    def update(self, failed: bool = False) -> None:
        """One more image is done, or failed."""
        with self._lock:
            self.count += 1
            self.failed += failed
            if self._bar is not None:
                if failed:
                    self._bar.set_postfix(failed=self.failed, refresh=False)
                self._bar.update()
            elif time.monotonic() - self._last_line >= self.line_seconds:
                self._line()

    def _line(self) -> None:
        if self.count == self._last_count:
            return
        self._last_count, self._last_line = self.count, time.monotonic()
        seconds = self._last_line - self._begin
        rate = self.count / seconds if seconds > 0 else 0.0
        speed = f"{rate:.2f} images/s" if rate >= 1 or not rate else f"{1 / rate:.1f} s/image"
        left = tqdm.format_interval((self.total - self.count) / rate) if rate else "?"
        logger.info(
            "%d of %d images, %d failed, %s, %s left",
            self.count,
            self.total,
            self.failed,
            speed,
            left,
        )
