"""Shards: shares of a run's images, each for a process of its own."""

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
        source: which images, where one output folder holds those of several lists; else "".
        count: number of shards.
        index: of this one, from 0 to ``count`` - 1.

    Raises ConfigError for a count or an index out of range.
    """

    source: str = ""
    count: int = 1
    index: int = 0

    def __post_init__(self):
        if self.count < 1:
            raise ConfigError("has to be at least 1", field="shard_count", value=self.count)
        if not 0 <= self.index < self.count:
            reason = f"valid are 0 to {self.count - 1}"
            raise ConfigError(reason, field="shard_index", value=self.index)

    @property
    def name(self) -> str:
        """The name of its folder: ``3-of-8``, with a source ``train.5d41402a.3-of-8``."""
        digits = len(str(self.count - 1))
        share = f"{self.index:0{digits}}-of-{self.count}"
        return f"{self.source}.{share}" if self.source else share

    @staticmethod
    def named(name: str) -> Shard | None:
        """The shard whose folder has this name; None where there is none."""
        if not (match := _NAME.fullmatch(name)):
            return None
        source, index, count = match["source"] or "", int(match["index"]), int(match["count"])
        shard = Shard(source, count, index) if index < count else None
        return shard if shard is not None and shard.name == name else None

    def __str__(self) -> str:
        return f"shard {self.name}"

    def folder(self, output: str | Path) -> Path:
        """The shard's own folder, below the output folder."""
        return Path(output, SHARDS_FOLDER, self.name)

    def bounds(self, total: int, chunk: int = 1) -> tuple[int, int]:
        """The first image of its share of ``total`` images, and the one after the last.

        Chunks of that many images stay together. Shares are contiguous, and their numbers of chunks
        differ by 1 at most.
        """
        chunks = -(-total // chunk)
        begin, end = (chunks * i // self.count * chunk for i in (self.index, self.index + 1))
        return min(begin, total), min(end, total)

    def share(
        self, images: Sequence[InputImage], selected: Sequence[InputImage], chunk: int = 1
    ) -> list[InputImage]:
        """Those of ``selected`` that are in this shard's share of all ``images``.

        In which shard an image is doesn't depend on which others are selected.

        Raises ConfigError for one of several shards in chunks, where not all images are selected:
        the chunks, which are batches, wouldn't be those of a run without shards.
        """
        if chunk > 1 and self.count > 1 and len(selected) != len(images):
            raise ConfigError(
                "in shards, the batches would not be those of one run where images are left out "
                "(`exclude_list`, `start_index`, `end_index`); give a list of the others as "
                "`input_list`, or take `batch_size`=1 or `batching`=bucketed",
                field="batching",
                value="mmf",
            )
        begin, end = self.bounds(len(images), chunk)
        own = set(images[begin:end])
        return [image for image in selected if image in own]

    def describe(self, images: Sequence[InputImage]) -> dict[str, Any]:
        """The shard and the images that it is a share of, as plain values for the manifest."""
        digest = hashlib.sha256("\n".join(i.name for i in images).encode(errors="surrogateescape"))
        share = {"source": self.source, "index": self.index, "count": self.count}
        return {**share, "of_images": len(images), "of_names_sha256": digest.hexdigest()}


def source_name(lists: Sequence[str]) -> str:
    """The source of a run over image lists: the name of the first one, and a hash of all paths."""
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
