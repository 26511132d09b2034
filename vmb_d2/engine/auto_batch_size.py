"""How many images go through the network at a time: what can be asked for, what memory allows."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ..utils.text import bytes_in_words

# The network's smallest maps, of 25 x 42 positions and 2048 channels, are 144 tiles of 128 x 128:
# one image keeps the 132 multiprocessors of an H100 busy, and of 16 images no more than 1/16 of the
# time is lost in a last round that isn't full. Reading ahead holds three batches in memory: of 16
# images 0.6 GB.
MOST = 16

# The share of the free memory that a batch may take, in tenths. The rest is for gaps between what
# is allocated, since images of many sizes follow one another.
TENTHS = 9


class Choice(NamedTuple):
    """A number of images.

    Attributes:
        batch_size: at a time.
        needed: bytes that so many take, the weights not counted; None where it wasn't measured.
        free: bytes that there were for them; None where it wasn't asked.
    """

    batch_size: int
    needed: int | None = None
    free: int | None = None

    def __str__(self) -> str:
        words = "1 image" if self.batch_size == 1 else f"{self.batch_size} images"
        if self.needed is None or self.free is None:
            return f"{words} at a time"
        needed, free = bytes_in_words(self.needed), bytes_in_words(self.free)
        return f"{words} at a time, for which up to {needed} are needed; {free} are free"


def largest_batch(fixed: int, each: int, available: int, most: int) -> int:
    """The most images, from 1 to ``most``, of which ``fixed`` and ``each`` fit into ``available``.

    Also 1 where that doesn't fit.
    """
    if each == 0:
        return most if fixed <= available else 1
    return min(max((available - fixed) // each, 1), most)


def choose_batch_size(
    measure: Callable[[int], int | None], free: Callable[[], int], most: int
) -> Choice:
    """The most images that fit, found by what one and two of them take.

    A batch takes what the greediest step of the network takes, and each step takes a fixed number
    of bytes and the same for each image. So none fits beyond what one and two images promise; but
    with many images another step can be the greediest. Hence what they promise is tried, and where
    it takes too much, the number is looked for by halves.

    Args:
        measure: gives the bytes that a number of images takes; None where they don't fit.
        free: gives the bytes that there are. It is asked after the first two measurements: with
            these come things that stay, such as libraries.
        most: the most images to give, at least 1.
    """
    if most == 1:
        return Choice(1)
    needed = {1: measure(1)}
    if needed[1] is None:
        return Choice(1)
    needed[2] = measure(2)
    there = free()
    available = there * TENTHS // 10

    def fits(count: int) -> bool:
        if count not in needed:
            needed[count] = measure(count)
        return needed[count] is not None and needed[count] <= available

    least = 1
    if needed[2] is None:
        most = 1
    else:
        each = max(needed[2] - needed[1], 0)
        most = largest_batch(needed[1] - each, each, available, most)
    count = most
    while least < most:
        if fits(count):
            least = count
        else:
            most = count - 1
        count = (least + most + 1) // 2
    return Choice(least, needed[least], there)
