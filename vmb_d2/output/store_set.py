"""All the stores that one run writes into, one for each format and feature."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConfigError, InputError, OutputError
from ..stores.base import FEATURE_DTYPES, FeatureWriter, output_errors
from ..stores.folder import FolderWriter
from ..stores.formats import Format, format_named
from ..structures.class_names import NO_NAMES, ClassNames
from ..structures.regions import RegionFeatures
from ..utils.text import listed
from .shards import Shard, shards_in

logger = logging.getLogger(__name__)


class StoreSet:
    """The stores of an output folder.

    The stores of one feature lie in the folder itself, those of several in a subfolder for each,
    named after the feature.

    Shards share the stores of formats that have files for each image. Of a format with one file for
    all images, each shard has a store of its own, in its folder.

    As a context manager, it opens the stores and closes them. After an OutputError they are
    abandoned instead.

    Args:
        folder: the output folder.
        formats: names of :data:`vmb_d2.stores.FORMATS`.
        features: names of the features; fewer than two needn't be named.
        dtype: of the features, ``"float32"`` or ``"float16"``, in formats that leave the choice.
        shard: of a run into this folder; None for the whole run.
        clip_boxes: whether boxes are clipped to the image; None: as each format has it.
        class_names: for the formats that write them.

    Raises:
        ConfigError: no such format or dtype.
    """

    def __init__(
        self,
        folder: str | Path,
        formats: Sequence[str],
        features: Sequence[str] = (),
        dtype: str = "float32",
        shard: Shard | None = None,
        clip_boxes: bool | None = None,
        class_names: ClassNames = NO_NAMES,
    ):
        if dtype not in FEATURE_DTYPES:
            raise ConfigError(field="dtype", value=dtype, valid=FEATURE_DTYPES)
        if not formats:
            raise ConfigError("has to name a format", field="output_format", value=formats)
        self.folder = Path(folder)
        self.formats = [format_named(name) for name in dict.fromkeys(formats)]
        self.features = list(features) if len(features) > 1 else [None]
        self.dtype = dtype
        self.shard = shard
        self.clip_boxes = clip_boxes
        self.class_names = class_names
        self._writers: list[FeatureWriter] = []  # of places(), while they are open

    def places(self) -> Iterator[tuple[Format, str | None, Path]]:
        """(format, feature, path below the folder) of each store."""
        for feature in self.features:
            for format_ in self.formats:
                own = self.shard.folder(".") if self.shard and format_.one_file else Path(".")
                yield format_, feature, own / (feature or ".") / format_.place

    def folders(self) -> Iterator[tuple[Format, FolderWriter]]:
        """(format, writer) of each open store that has files for each image."""
        for (format_, _, _), writer in zip(self.places(), self._writers, strict=True):
            if isinstance(writer, FolderWriter):
                yield format_, writer

    def describe(self) -> list[dict[str, Any]]:
        """The stores as the manifest lists them."""
        return [
            {
                "format": format_.name,
                "feature": feature,
                "path": place.as_posix(),
                "boxes_clipped": format_.clips(self.clip_boxes),
                **self.class_names.files(),
            }
            for format_, feature, place in self.places()
        ]

    def check_names(self, names: Iterable[str]) -> None:
        """Raise InputError where a format can't keep an image under its name.

        Warn of names that the readers of a format confuse.
        """
        names = list(names)
        problems = [
            f"{name!r} in {format_.name}: {reason}"
            for format_ in self.formats
            for name, reason in format_.writer.problems(names)
        ]
        if problems:
            raise InputError(f"names that can't be stored: {listed(problems)}")
        for format_ in self.formats:
            for line in format_.writer.mistaken(names):
                logger.warning("%s: %s", format_.name, line)

    def check_shards(self) -> None:
        """Raise ConfigError where a whole run would extract again what shards have stored.

        It goes on with a store that their stores were packed into.
        """
        if self.shard:
            return
        own = [(f, place) for f, _, place in self.places() if not (self.folder / place).exists()]
        for shard in shards_in(self.folder):
            for format_, place in own:
                if format_.one_file and (shard.folder(self.folder) / place).exists():
                    raise ConfigError(
                        f"`output_dir`={self.folder} has its {format_.name} in shards: give "
                        f"`shard_count`={shard.count} and `shard_index`, or another folder"
                    )

    def bytes_per_image(self, regions: int, dimension: int, classes: int) -> int:
        """About how much one image takes on the disk, in all stores together."""
        total = 0
        for format_ in self.formats:
            itemsize = format_.writer.dtype_for(self.dtype).itemsize
            total += format_.writer.bytes_per_image(regions, dimension, classes, itemsize)
        return total * len(self.features)

    def __enter__(self) -> StoreSet:
        try:
            with output_errors(self.folder):
                for format_, feature, place in self.places():
                    path = self.folder / place
                    if feature:
                        (self.folder / feature).mkdir(exist_ok=True)
                        path.parent.mkdir(exist_ok=True)
                    self._writers.append(format_.writer(path, self.dtype, self.class_names))
        except BaseException:
            self._abandon()
            raise
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            if not isinstance(error, OutputError):
                for writer in self._writers:
                    writer.close()
        finally:
            self._abandon()

    def _abandon(self) -> None:
        while self._writers:
            self._writers.pop().abandon()

    def __contains__(self, name: str) -> bool:
        """Whether an image is in every store."""
        return all(name in writer for writer in self._writers)

    def present(self, names: Iterable[str]) -> set[str]:
        """Those of ``names`` that are in every store."""
        for writer in self._writers:
            names = writer.present(names)
        return set(names)

    def unfit(self, regions: RegionFeatures) -> str | None:
        """Why finite features can't be stored in the stores' dtype; None where they can."""
        if all(writer.dtype != np.float16 for writer in self._writers):
            return None
        most = float(np.finfo(np.float16).max)
        for name, values in {"features": regions.features, **regions.further}.items():
            if count := int((np.abs(values) > most).sum()):
                return f"{name}: {count} of {values.size} values are beyond float16's {most:g}"
        return None

    def write(self, name: str, regions: RegionFeatures) -> None:
        """Add an image to the stores that don't have it. Raises OutputError."""
        for (format_, feature, _), writer in zip(self.places(), self._writers, strict=True):
            if name not in writer:
                own = regions.with_feature(feature)
                writer.write(name, own.clipped() if format_.clips(self.clip_boxes) else own)

    def flush(self) -> None:
        """Make what was written survive any death. Raises OutputError."""
        for writer in self._writers:
            writer.flush()
