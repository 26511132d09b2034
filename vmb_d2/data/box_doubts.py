"""Boxes that look like another unit or order than declared, and boxes outside of their images."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from ..utils.text import listed

FAR = 0.25  # of the image's sides: so far beyond its edges lies no box by rounding or padding
MARGIN = 0.05  # so far beyond lie some

logger = logging.getLogger(__name__)


class BoxDoubts:
    """Warns once a run, as soon as it shows, of boxes that don't look as declared.

    Args:
        source: what the boxes were read from, for messages.
        box_format, normalized: as declared.
        kind: of the file, where the declaration is the file's.
    """

    def __init__(self, source: str | Path, box_format: str, normalized: bool, kind: str | None):
        self.source = source
        self.box_format = box_format
        self.normalized = normalized
        self.kind = kind
        self._warned = False
        self._boxes = self._outside = 0
        self._images: list[str] = []  # that have boxes outside

    def of_all(self, boxes: np.ndarray) -> None:
        """Look at what shows without the images: the boxes (n, 4) of all of them, as declared."""
        if not len(boxes):
            return
        signs, fitting = [], {}
        largest = np.abs(boxes).max(axis=1)
        if not self.normalized and largest.max() <= 2 and np.mean(largest <= 1) >= 0.5:
            signs.append(f"no coordinate is above {largest.max():.4g}")
            fitting["normalized"] = "true"
        if self.normalized and np.mean(largest > 2) >= 0.5:
            signs.append(f"coordinates are up to {largest.max():.4g}")
            fitting["normalized"] = "false"
        backward = (boxes[:, 2:] < boxes[:, :2]).any(axis=1)
        if self.box_format == "xyxy" and backward.mean() >= 0.2:
            signs.append(f"{backward.sum()} of {len(boxes)} boxes end before they begin")
            fitting["format"] = "xywh"
        if signs:
            self._warn(" and ".join(signs), fitting)

    def of_image(
        self,
        name: str,
        values: np.ndarray,
        boxes: np.ndarray,
        backward: np.ndarray,
        size: tuple[int, int],
    ) -> None:
        """Look at the boxes of one image.

        Args:
            name: the image's.
            values: (n, 4), as declared.
            boxes: (n, 4), the same as inclusive boxes in original pixels.
            backward: bool (n,), which of them end before they begin.
            size: (width, height).
        """
        begin, end = boxes[:, :2], boxes[:, 2:]
        outside = ((begin >= size) | (np.maximum(begin, end) < 0)).any(axis=1)
        self._boxes += len(boxes)
        self._outside += int(outside.sum())
        if outside.any():
            self._images.append(name)
        past = np.maximum(-begin, end - size) > FAR * np.array(size)
        far = outside | past.any(axis=1)
        wrong = far | backward
        if self._warned or not wrong.any():
            return
        fitting = self._fitting(values, size)
        if fitting or far.mean() > 0.5:
            width, height = size
            self._warn(
                f"{wrong.sum()} of {len(boxes)} boxes of {name} end before they begin or reach far "
                f"beyond the image, of {width} x {height} pixels; {outside.sum()} are wholly "
                "outside",
                fitting,
            )

    def _fitting(self, values: np.ndarray, size: tuple[int, int]) -> dict[str, str]:
        """Other settings with which all of an image's boxes lie in it; empty where none do."""
        other_format = "xywh" if self.box_format == "xyxy" else "xyxy"
        for box_format in (self.box_format, other_format):
            for normalized in (self.normalized, not self.normalized):
                sides = (1, 1) if normalized else size
                begin, end = values[:, :2] / sides, values[:, 2:] / sides
                if box_format == "xywh":
                    end = end + begin
                fits = (begin >= -MARGIN) & (end >= begin) & (end <= 1 + MARGIN)
                if fits.all() and (normalized or values.max() > 2):
                    fitting = {}
                    if normalized != self.normalized:
                        fitting["normalized"] = str(normalized).lower()
                    if box_format != self.box_format:
                        fitting["format"] = box_format
                    return fitting
        return {}

    def _warn(self, sign: str, fitting: dict[str, str]) -> None:
        settings = " ".join(f"boxes.{key}={value}" for key, value in fitting.items())
        advice = f"{settings} would fit"
        if not fitting:
            advice = "are they of images of another size?"
        elif self.kind:
            advice = f"they look like {settings}, unlike {self.kind}: mend the file"
        self._warned = True
        logger.warning("%s: %s; %s", self.source, sign, advice)

    def log_outside(self) -> None:
        """Say how many boxes lay wholly outside: a warning, unless there was one."""
        if not self._images:
            return
        level = logging.INFO if self._warned else logging.WARNING
        self._warned = True
        words = "%s: %d of %d boxes lie wholly outside of their images, %s"
        logger.log(level, words, self.source, self._outside, self._boxes, listed(self._images))
