"""A run cut into shards, each for a process of its own."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigError, OutputError
from ..structures.input_image import InputImage

SHARDS_FOLDER = "shards"
_NAME = re.compile(r"(?:(?P<source>.+)\.)?(?P<index>\d+)-of-(?P<count>\d+)", re.DOTALL)


@dataclass(frozen=True, order=True)
class Shard:
    """One of ``count`` shares of the images.

    Attributes:
        source: of what; "" unless the images of one output folder come of several runs' lists.
        count: how many shards there are.
        index: which one, from 0.

    Raises ConfigError for an index that isn't below ``count``.
    """

    source: str = ""
    count: int = 1
    index: int = 0

    def __post_init__(self):
        if self.count < 1:
            raise ConfigError(f"shard.count={self.count}: has to be at least 1")
        if not 0 <= self.index < self.count:
            raise ConfigError(f"shard.index={self.index}: valid are 0 to {self.count - 1}")

    @property
    def name(self) -> str:
        """Of the shard's folder: ``3-of-8``, with the source ``train.5d41402a.3-of-8``."""
        digits = len(str(self.count - 1))
        share = f"{self.index:0{digits}}-of-{self.count}"
        return f"{self.source}.{share}" if self.source else share

    @staticmethod
    def named(name: str) -> Shard | None:
        """The shard of a folder's name; None where it is of no shard."""
        if not (match := _NAME.fullmatch(name)):
            return None
        source, index, count = match["source"] or "", int(match["index"]), int(match["count"])
        shard = Shard(source, count, index) if index < count else None
        return shard if shard is not None and shard.name == name else None

    def __str__(self) -> str:
        return f"shard {self.name}"

    def folder(self, output: str | Path) -> Path:
        """Where the shard keeps what is its own, below the output folder."""
        return Path(output, SHARDS_FOLDER, self.name)

    def bounds(self, total: int, chunk: int = 1) -> tuple[int, int]:
        """Begin and end of its share of ``total`` images, all in chunks that stay whole.

        The shares of all shards are contiguous and differ by a chunk at most.
        """
        chunks = -(-total // chunk)
        begin, end = (chunks * i // self.count * chunk for i in (self.index, self.index + 1))
        return min(begin, total), min(end, total)

    def share(
        self, images: Sequence[InputImage], selected: Sequence[InputImage], chunk: int = 1
    ) -> list[InputImage]:
        """Those of ``selected`` that are in this shard's share of all ``images``.

        So it doesn't depend on what is selected in which shard an image is.

        Raises ConfigError for one of several shards in chunks where not all images are selected:
        one run would form its chunks, across all shards, of those that are.
        """
        if chunk > 1 and self.count > 1 and len(selected) != len(images):
            raise ConfigError(
                "extract.batching=mmf with shard.count: the batches would not be one run's where "
                "images are left out (input.exclude_list, start_index, end_index); give a list of "
                "the others as input.list, or take batch_size=1 or batching=bucketed"
            )
        begin, end = self.bounds(len(images), chunk)
        own = set(images[begin:end])
        return [image for image in selected if image in own]

    def describe(self, images: Sequence[InputImage]) -> dict[str, Any]:
        """For the manifest: which share of which images, as plain values."""
        digest = hashlib.sha256("\n".join(i.name for i in images).encode(errors="surrogateescape"))
        share = {"source": self.source, "index": self.index, "count": self.count}
        return {**share, "of_images": len(images), "of_names_sha256": digest.hexdigest()}


def source_name(lists: Sequence[str]) -> str:
    """The source of a run over image lists: the first one's name, and a hash of all paths."""
    digest = hashlib.sha256("\n".join(lists).encode(errors="surrogateescape")).hexdigest()[:8]
    return f"{Path(lists[0]).stem}.{digest}"


def shards_in(output: str | Path) -> Iterator[Shard]:
    """The shards that have a folder in an output folder, in order.

    Raises OutputError where it can't be read.
    """
    folder = Path(output, SHARDS_FOLDER)
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise OutputError(f"{folder}: {error.strerror}") from error
    yield from sorted(filter(None, map(Shard.named, names)))
