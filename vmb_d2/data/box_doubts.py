"""Warnings of boxes that look like another unit or format than declared, or lie outside."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from ..utils.text import listed

FAR = 0.25  # of the image's sides; boxes reach less far beyond it by rounding or padding
MARGIN = 0.05  # of the image's sides; how far boxes of the right unit and format reach beyond it

logger = logging.getLogger(__name__)


class BoxDoubts:
    """Warns once of boxes that look like another unit or format than declared.

    Args:
        source: where the boxes come from, for messages.
        box_format, normalized: what is declared.
        kind: of the file, in words, if that determines the two; else empty.
    """

    def __init__(self, source: str | Path, box_format: str, normalized: bool, kind: str):
        self.source = source
        self.box_format = box_format
        self.normalized = normalized
        self.kind = kind
        self._warned = False
        self._boxes = 0
        self._outside: dict[str, int] = {}  # how many, of each image that has some

    def look_at_all(self, boxes: np.ndarray) -> None:
        """Look at the boxes (n, 4) of all images, before their sizes are known."""
        if not len(boxes):
            return
        signs = []
        box_format, normalized = self.box_format, self.normalized
        largest = np.abs(boxes).max(axis=1)
        if not self.normalized and largest.max() <= 2 and np.mean(largest <= 1) >= 0.5:
            signs.append(f"no coordinate is above {largest.max():.4g}")
            normalized = True
        if self.normalized and np.mean(largest > 2) >= 0.5:
            signs.append(f"coordinates are up to {largest.max():.4g}")
            normalized = False
        backward = (boxes[:, 2:] < boxes[:, :2]).any(axis=1)
        if self.box_format == "xyxy" and backward.mean() >= 0.2:
            signs.append(f"{backward.sum()} of {len(boxes)} boxes end before they begin")
            box_format = "xywh"
        if signs:
            self._warn(" and ".join(signs), (box_format, normalized))

    def look_at(
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
            values: (n, 4), as given.
            boxes: (n, 4), inclusive, in original pixels, by what is declared.
            backward: bool (n,), which of the boxes end before they begin.
            size: (width, height) in original pixels.
        """
        begin, end, sides = boxes[:, :2], boxes[:, 2:], np.array(size)
        outside = ((begin >= sides) | (np.maximum(begin, end) < 0)).any(axis=1)
        far = outside | (np.maximum(-begin, end - sides) > FAR * sides).any(axis=1)
        self._boxes += len(boxes)
        if outside.any():
            self._outside[name] = int(outside.sum())
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

    def _fitting(self, values: np.ndarray, size: tuple[int, int]) -> tuple[str, bool] | None:
        """Another format, and whether normalized, by which all boxes of an image lie in it."""
        other_format = "xywh" if self.box_format == "xyxy" else "xyxy"
        for box_format in (self.box_format, other_format):
            for normalized in (self.normalized, not self.normalized):
                sides = (1, 1) if normalized else size
                begin, end = values[:, :2] / sides, values[:, 2:] / sides
                if box_format == "xywh":
                    end = end + begin
                fits = (begin >= -MARGIN) & (end >= begin) & (end <= 1 + MARGIN)
                if fits.all() and (normalized or values.max() > 2):
                    declared = self.box_format, self.normalized
                    found = box_format, normalized
                    return found if found != declared else None
        return None

    def _warn(self, sign: str, fitting: tuple[str, bool] | None) -> None:
        advice = "are they of images of another size?"
        if fitting is not None:
            box_format, normalized = fitting
            unit = "shares of the image's sides" if normalized else "pixels"
            advice = f"they look like {box_format} in {unit}"
            if self.kind:
                advice += f", unlike {self.kind}: mend the file"
        self._warned = True
        logger.warning("%s: %s; %s", self.source, sign, advice)

    def log_outside(self) -> None:
        """Log how many boxes lie wholly outside of their images."""
        if self._outside:
            level = logging.INFO if self._warned else logging.WARNING
            words = "%s: %d of %d boxes lie wholly outside of their images, %s"
            count, names = sum(self._outside.values()), listed(list(self._outside))
            logger.log(level, words, self.source, count, self._boxes, names)
