"""MMF's files: ``name.npy`` with the features and ``name_info.npy`` with the rest."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import StoreError
from ..structures.regions import RegionFeatures
from ..utils import safe_pickle as pickles
from .base import store_errors
from .fields import IN_INFO, info_of, regions_of
from .folder import FolderReader, FolderWriter, first_file


class MMFWriter(FolderWriter):
    """Writes two files an image into a folder, the info first."""

    suffixes = ("_info.npy", ".npy")
    keeps = IN_INFO

    @classmethod
    def problems(cls, names):
        for name in names:
            yield from super().problems([name])
            if name.endswith("_info"):
                yield name, "its file would be taken for a part of another image"

    def contents(self, name: str, regions: RegionFeatures) -> Iterator[bytes]:
        features = io.BytesIO()
        np.save(features, self.features_of(regions))
        yield pickles.dump_npy(info_of(regions))
        yield features.getvalue()


class MMFReader(FolderReader):
    """Reads MMF's files. Where an image has no info file, only the features are known."""

    suffix = ".npy"

    @classmethod
    def is_store(cls, path: Path) -> bool:
        def is_image(file: str) -> bool:
            return file.endswith(".npy") and not file.endswith("_info.npy")

        return first_file(path, is_image) is not None

    def names(self) -> Iterator[str]:
        for name in super().names():
            # x_info.npy belongs to x; unless it has an info itself, then it is an image.
            if not name.endswith("_info") or (self.path / f"{name}_info.npy").exists():
                yield name

    def read(self, name: str) -> RegionFeatures:
        features = self._load(self.path / f"{name}.npy")
        info_file = self.path / f"{name}_info.npy"
        info = self._load(info_file) if info_file.exists() else {}
        with store_errors(self.path / name):
            if not isinstance(features, np.ndarray) or not isinstance(info, Mapping):
                raise StoreError("not MMF's files of an image")
            return regions_of(features, info)

    @staticmethod
    def _load(file: Path) -> Any:
        with store_errors(file), open(file, "rb") as content:
            return pickles.load_npy(content)
