"""The npz files of bottom-up-attention.pytorch: one ``name.npz`` an image."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import StoreError, first_line
from ..regions import RegionFeatures
from . import pickles
from .folder import FolderReader, FolderWriter
from .mmf import regions_of


def _info_of(name: str, regions: RegionFeatures) -> dict[str, Any]:
    numbers = {
        "image_id": regions.extra.get("image_id", name),
        "image_h": regions.image_height,
        "image_w": regions.image_width,
        "num_boxes": regions.num_boxes,
    }
    arrays = {
        "objects_id": (regions.objects, np.int64),
        "objects_conf": (regions.objects_conf, np.float32),
        "cls_prob": (regions.cls_prob, np.float32),
        "class_logits": (regions.class_logits, np.float32),
        "attrs_id": (regions.attrs_id, np.int64),
        "attrs_conf": (regions.attrs_conf, np.float32),
    }
    info = dict(regions.extra)
    info |= {key: value for key, value in numbers.items() if value is not None}
    info |= {k: np.asarray(v, dtype) for k, (v, dtype) in arrays.items() if v is not None}
    return info


class NpzWriter(FolderWriter):
    """Writes a file an image, not compressed. What the image lacks is left out."""

    suffixes = (".npz",)

    def contents(self, name: str, regions: RegionFeatures) -> Iterator[bytes]:
        arrays = {
            "x": self.features_of(regions),
            "bbox": None if regions.bbox is None else np.asarray(regions.bbox, np.float32),
            "num_bbox": len(regions),
            "image_h": regions.image_height,
            "image_w": regions.image_width,
        }
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            for key, value in arrays.items():
                if value is not None:
                    member = io.BytesIO()
                    np.save(member, np.asanyarray(value))
                    archive.writestr(zipfile.ZipInfo(f"{key}.npy"), member.getbuffer())
            info = pickles.dump_npy(_info_of(name, regions))
            archive.writestr(zipfile.ZipInfo("info.npy"), info)
        yield file.getvalue()

    @staticmethod
    def bytes_per_image(regions: int, dimension: int, classes: int, itemsize: int) -> int:
        return regions * (dimension * itemsize + classes * 4 + 4 * 4 + 8 + 4) + 2500


class NpzReader(FolderReader):
    """Reads such files, compressed ones too, whoever wrote them; only ``x`` has to be there."""

    suffixes = (".npz",)

    def read(self, name: str) -> RegionFeatures:
        file = self.path / f"{name}.npz"
        try:
            return _regions_of(name, self._load(file))
        except OSError as error:
            raise StoreError(f"{file}: can't be read: {error.strerror or error}") from error
        except Exception as error:  # a damaged zip file raises anything
            raise StoreError(f"{file}: {first_line(error)}") from error

    @staticmethod
    def _load(file: Path) -> dict[str, Any]:
        values = {}
        with zipfile.ZipFile(file) as archive:
            for member in archive.namelist():
                with archive.open(member) as content:
                    # All of it, since only then the checksum is compared.
                    value = pickles.load_npy(io.BytesIO(content.read()))
                values[member.removesuffix(".npy")] = value
        return values


def _regions_of(name: str, values: dict[str, Any]) -> RegionFeatures:
    info = values.pop("info", {})
    if "x" not in values or not isinstance(info, Mapping):
        raise StoreError("has no features x, or an info that is no dict")
    known = dict(info)
    if known.get("image_id") == name:
        del known["image_id"]
    features = values.pop("x")
    for key, ours in (
        ("bbox", "bbox"),
        ("num_bbox", "num_boxes"),
        ("image_h", "image_height"),
        ("image_w", "image_width"),
    ):
        of_info, of_file = known.pop(key, None), values.pop(key, None)
        if known.get(ours) is None:
            known[ours] = of_info if of_file is None else of_file
    objects = known.pop("objects_id", None)
    if known.get("objects") is None:
        known["objects"] = objects
    return regions_of(features, {**values, **known})
