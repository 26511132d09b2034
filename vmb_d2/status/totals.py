"""Images and rates of several parts together, and how long what is left takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .part import RUNNING, Part


@dataclass(frozen=True)
class Totals:
    """Of several parts.

    Attributes:
        images, left: of those whose number of images is known.
        done, failed: of all.
        at_most: there may be fewer images, and fewer left.
        unknown: how many parts have an unknown number of images.
        rate: images a second, of the running ones together.
        running_seconds: until the last of the running ones ends, if each keeps its rate, and one
            that is still at its beginning gets the others' mean; None where there is no rate.
        all_seconds: until nothing is left, if the rate of all together stays as it is.
    """

    images: int
    done: int
    failed: int
    left: int
    at_most: bool
    unknown: int
    rate: float
    running_seconds: float | None
    all_seconds: float | None

    @classmethod
    def of(cls, parts: Sequence[Part]) -> Totals:
        known = [part for part in parts if part.images is not None]
        unknown = len(parts) - len(known)
        left = sum(part.left for part in known)
        running = [part for part in parts if part.state == RUNNING]
        rates = [part.rate for part in running if part.rate]
        running_seconds = all_seconds = None
        if rates and all(part.images is not None for part in running):
            mean = sum(rates) / len(rates)
            running_seconds = max(part.left / (part.rate or mean) for part in running)
            if not unknown:
                all_seconds = max(running_seconds, left / sum(rates))
        return cls(
            images=sum(part.images for part in known),
            done=sum(part.done for part in parts),
            failed=sum(part.failed for part in parts),
            left=left,
            at_most=any(part.at_most for part in known),
            unknown=unknown,
            rate=sum(rates),
            running_seconds=running_seconds,
            all_seconds=all_seconds,
        )
