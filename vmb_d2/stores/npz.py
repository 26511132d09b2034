"""The npz files of bottom-up-attention.pytorch, and as OpenVQA takes them: one an image."""

from __future__ import annotations

import contextlib
import io
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..errors import StoreError
from ..structures.regions import RegionFeatures
from ..utils import safe_pickle as pickles
from .base import store_errors
from .fields import IN_INFO, regions_of
from .folder import FolderReader, FolderWriter, first_file, names_below

# Formats of npz files that have a folder of their own below an output folder, by its name. Files in
# such a folder aren't among the npz files of the folder around it.
PLACES = ("openvqa", "uniter")

# Keys of bottom-up-attention.pytorch's files, as RegionFeatures calls them.
_FIELDS = {"image_h": "image_height", "image_w": "image_width", "objects_id": "objects"}
# Of each field of `info` that can be unknown, key and dtype.
_INFO = {
    "image_height": ("image_h", int),
    "image_width": ("image_w", int),
    "num_boxes": ("num_boxes", int),
    "objects": ("objects_id", np.int64),
    "objects_conf": ("objects_conf", np.float32),
    "cls_prob": ("cls_prob", np.float32),
    "class_logits": ("class_logits", np.float32),
    "attrs_id": ("attrs_id", np.int64),
    "attrs_conf": ("attrs_conf", np.float32),
    "attribute_ids": ("attribute_ids", np.int64),
    "attribute_scores": ("attribute_scores", np.float32),
}


def npz_kind(folder: Path) -> str | None:
    """The format of the npz files below a folder: "npz", or one of ``PLACES``; None: no files.

    The first file found tells; where it doesn't, the folder's name.
    """
    file = first_file(folder, lambda file: file.endswith(".npz"), PLACES)
    if file is None:
        return None
    kind = folder.name if folder.name in PLACES else "npz"
    with contextlib.suppress(StoreError):
        values = _load(file)
        if "norm_bb" in values or "features" in values:
            return "uniter"
        if (transposed := _is_transposed(values)) is not None:
            return "openvqa" if transposed else "npz"
    return kind


def _load(file: Path) -> dict[str, Any]:
    """The arrays of an npz file, by key. Raises StoreError."""
    values = {}
    with store_errors(file), zipfile.ZipFile(file) as archive:
        for member in archive.namelist():
            # Read whole: only then zipfile compares the checksum.
            content = io.BytesIO(archive.read(member))
            values[member.removesuffix(".npy")] = pickles.load_npy(content)
    return values


def _is_transposed(values: Mapping[str, Any]) -> bool | None:
    """Whether ``x`` is (D, N) rather than (N, D); None where the number of boxes doesn't tell."""
    shape, count = np.shape(values.get("x", ())), len(values.get("bbox", ()))
    if len(shape) != 2 or (shape[0] == count) == (shape[1] == count):
        return None
    return shape[1] == count


class NpzWriter(FolderWriter):
    """Writes a file an image, not compressed. What the image lacks is left out."""

    suffixes = (".npz",)
    keeps = IN_INFO

    @classmethod
    def problems(cls, names):
        names = list(names)
        yield from super().problems(names)
        for name in names:
            folder, slash, _ = name.partition("/")
            if slash and folder in PLACES:
                yield name, f"{folder} is the folder of the format {folder}"

    def contents(self, name: str, regions: RegionFeatures) -> Iterator[bytes]:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            for key, value in self.arrays(name, regions).items():
                if isinstance(value, dict):
                    content = pickles.dump_npy(value)
                elif value is not None:
                    member = io.BytesIO()
                    np.save(member, np.asanyarray(value))
                    content = member.getvalue()
                else:
                    continue
                archive.writestr(zipfile.ZipInfo(f"{key}.npy"), content)
        yield file.getvalue()

    def arrays(self, name: str, regions: RegionFeatures) -> dict[str, Any]:
        """What is in an image's file, by key; None for what isn't."""
        info = {**regions.extra, "image_id": regions.extra.get("image_id", name)}
        for field, (key, dtype) in _INFO.items():
            if (value := getattr(regions, field)) is not None:
                info[key] = value if dtype is int else np.asarray(value, dtype)
        return {
            "x": self.features_of(regions),
            "bbox": None if regions.bbox is None else np.asarray(regions.bbox, np.float32),
            "num_bbox": len(regions),
            "image_h": regions.image_height,
            "image_w": regions.image_width,
            "info": info,
        }


class NpzReader(FolderReader):
    """Reads such files, compressed ones too, whoever wrote them; only ``x`` has to be there.

    It may be (N, D) or (D, N); the number of boxes tells which.
    """

    suffix = ".npz"
    format_name: ClassVar[str] = "npz"
    transposed: ClassVar[bool] = False  # whether x is (D, N) where a file doesn't tell

    @classmethod
    def is_store(cls, path: Path) -> bool:
        return npz_kind(path) == cls.format_name

    def names(self) -> Iterator[str]:
        return names_below(self.path, self.suffix, PLACES)

    def read(self, name: str) -> RegionFeatures:
        file = self.path / f"{name}.npz"
        values = _load(file)
        with store_errors(file):
            return self.regions(name, values)

    def regions(self, name: str, values: dict[str, Any]) -> RegionFeatures:
        """The regions that a file's values are. Raises StoreError, without the file's name."""
        info = values.pop("info", {})
        if "x" not in values or not isinstance(info, Mapping):
            raise StoreError("has no features x, or an info that is no dict")
        transposed = _is_transposed(values)
        known = {_FIELDS.get(key, key): value for key, value in {**info, **values}.items()}
        if known.get("image_id") == name:
            del known["image_id"]
        features, rows = known.pop("x"), known.pop("num_bbox", None)
        known.setdefault("num_boxes", rows)
        attributes = known.get("attrs_id")
        if isinstance(attributes, np.ndarray) and attributes.ndim == 2:
            # In newer files: the probability of each attribute.
            known["attrs_prob"] = attributes
            known["attrs_id"] = attributes.argmax(axis=1)
            known["attrs_conf"] = attributes.max(axis=1)
        if self.transposed if transposed is None else transposed:
            features = np.ascontiguousarray(np.transpose(features))
        return regions_of(features, known)


class OpenVQAWriter(NpzWriter):
    """Writes the same files but for ``x``, which is (D, N)."""

    def arrays(self, name: str, regions: RegionFeatures) -> dict[str, Any]:
        arrays = super().arrays(name, regions)
        return arrays | {"x": arrays["x"].T}


class OpenVQAReader(NpzReader):
    """Reads such files, also with an ``x`` of (N, D) where the number of boxes tells it."""

    format_name = "openvqa"
    transposed = True
