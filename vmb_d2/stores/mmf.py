"""MMF's files: ``name.npy`` with the features and ``name_info.npy`` with the rest."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import StoreError, first_line
from ..structures.regions import RegionFeatures
from ..utils import safe_pickle as pickles
from .checks import checked
from .folder import FolderReader, FolderWriter, scan

_KEYS = ("bbox", "num_boxes", "objects", "cls_prob", "image_width", "image_height")
_OPTIONAL_KEYS = ("class_logits", "objects_conf", "attrs_id", "attrs_conf")


def info_of(regions: RegionFeatures) -> dict[str, Any]:
    """Everything but the features, as MMF keys it; ``class_logits`` where boxes were given.

    ``objects_conf`` is among it only where ``cls_prob`` doesn't say the same.
    """
    info = {key: getattr(regions, key) for key in _KEYS}
    for key in _OPTIONAL_KEYS:
        value = getattr(regions, key)
        if value is not None and not (key == "objects_conf" and _follows(value, regions.cls_prob)):
            info[key] = value
    return {**regions.extra, **info}


def _follows(objects_conf: np.ndarray, cls_prob: np.ndarray | None) -> bool:
    return cls_prob is not None and np.array_equal(objects_conf, cls_prob.max(axis=1, initial=0))


def regions_of(features: np.ndarray, info: Mapping[str, Any]) -> RegionFeatures:
    """The inverse of :func:`info_of`. Keys that are missing become None, ``num_boxes`` all.

    Raises StoreError, without the file's name, where they are not the regions of one image.
    """
    known = {key: info.get(key) for key in (*_KEYS, *_OPTIONAL_KEYS)}
    extra = {key: value for key, value in info.items() if key not in known}
    known = checked({"features": features, **known})
    if known["num_boxes"] is None:
        known["num_boxes"] = len(known["features"])
    return RegionFeatures(**known, extra=extra)


class MMFWriter(FolderWriter):
    """Writes two files an image into a folder, the info first."""

    suffixes = ("_info.npy", ".npy")

    def contents(self, name: str, regions: RegionFeatures) -> Iterator[bytes]:
        features = io.BytesIO()
        np.save(features, self.features_of(regions))
        yield pickles.dump_npy(info_of(regions))
        yield features.getvalue()

    @staticmethod
    def bytes_per_image(regions: int, dimension: int, classes: int, itemsize: int) -> int:
        return regions * (dimension * itemsize + classes * 4 + 4 * 4 + 8) + 1000


class MMFReader(FolderReader):
    """Reads MMF's files. Where an image has no info file, only the features are known."""

    suffixes = (".npy",)

    def names(self) -> Iterator[str]:
        for name in scan(self.path, self.suffixes):
            # x_info.npy belongs to x; unless it has an info itself, then it is an image.
            if not name.endswith("_info") or (self.path / f"{name}_info.npy").exists():
                yield name

    def read(self, name: str) -> RegionFeatures:
        features = self._load(self.path / f"{name}.npy")
        info_file = self.path / f"{name}_info.npy"
        info = self._load(info_file) if info_file.exists() else {}
        if not isinstance(features, np.ndarray) or not isinstance(info, Mapping):
            raise StoreError(f"{self.path / name}: not MMF's files of an image")
        try:
            return regions_of(features, info)
        except StoreError as error:
            raise StoreError(f"{self.path / name}: {error}") from error

    def _load(self, file: Path) -> Any:
        try:
            with open(file, "rb") as content:
                return pickles.load_npy(content)
        except OSError as error:
            raise StoreError(f"{file}: can't be read: {error.strerror}") from error
        except Exception as error:  # a damaged header raises anything
            raise StoreError(f"{file}: {first_line(error)}") from error
