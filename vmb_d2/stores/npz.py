"""The npz files of bottom-up-attention.pytorch, and as OpenVQA takes them: one an image."""

from __future__ import annotations

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

# Names of fields of RegionFeatures in bottom-up-attention.pytorch's files, and their dtypes.
_NUMBERS = {"image_height": "image_h", "image_width": "image_w", "num_boxes": "num_boxes"}
_ARRAYS = {
    "objects": ("objects_id", np.int64),
    "objects_conf": ("objects_conf", np.float32),
    "cls_prob": ("cls_prob", np.float32),
    "class_logits": ("class_logits", np.float32),
    "attrs_id": ("attrs_id", np.int64),
    "attrs_conf": ("attrs_conf", np.float32),
}
_FIELDS = {
    "bbox": "bbox",
    "num_bbox": "num_boxes",
    "image_h": "image_height",
    "image_w": "image_width",
}


def npz_kind(folder: Path) -> str | None:
    """The format of the npz files below a folder: "npz", or one of ``PLACES``; None: no files.

    The first file found tells; where it is damaged, the folder's name.
    """
    file = first_file(folder, lambda file: file.endswith(".npz"), _stores_below(folder))
    if file is None:
        return None
    try:
        with zipfile.ZipFile(file) as archive:
            return _kind_of_file(archive)
    except Exception:  # a damaged zip file raises anything
        return folder.name if folder.name in PLACES else "npz"


def _stores_below(folder: Path) -> set[str]:
    """The folders below one with npz files that are stores of their own."""
    return {p for p in PLACES if (folder / p).is_dir() and npz_kind(folder / p) == p}


def _kind_of_file(archive: zipfile.ZipFile) -> str:
    members = archive.namelist()
    if "norm_bb.npy" in members or "features.npy" in members:
        return "uniter"
    shape, fortran_order = _header(archive, "x.npy")
    count = _header(archive, "bbox.npy")[0][0] if "bbox.npy" in members else None
    return "openvqa" if _is_transposed(shape, count, fortran_order) else "npz"


def _header(archive: zipfile.ZipFile, member: str) -> tuple[tuple[int, ...], bool]:
    """Shape of an array, and whether it is stored column by column."""
    with archive.open(member) as content:
        return pickles.read_npy_header(content)[:2]


def _is_transposed(shape: tuple[int, ...], count: int | None, otherwise: bool) -> bool:
    """Whether ``x`` is (D, N) rather than (N, D), by the number of boxes N where that tells."""
    if len(shape) != 2 or (shape[0] == count) == (shape[1] == count):
        return otherwise
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
        for field, key in _NUMBERS.items():
            if (number := getattr(regions, field)) is not None:
                info[key] = number
        for field, (key, dtype) in _ARRAYS.items():
            if (array := getattr(regions, field)) is not None:
                info[key] = np.asarray(array, dtype)
        return {
            "x": self.features_of(regions),
            "bbox": None if regions.bbox is None else np.asarray(regions.bbox, np.float32),
            "num_bbox": len(regions),
            "image_h": regions.image_height,
            "image_w": regions.image_width,
            "info": info,
        }

    @staticmethod
    def bytes_per_image(regions: int, dimension: int, classes: int, itemsize: int) -> int:
        return regions * (dimension * itemsize + classes * 4 + 4 * 4 + 8 + 4) + 2500


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
        return names_below(self.path, self.suffix, _stores_below(self.path))

    def read(self, name: str) -> RegionFeatures:
        file = self.path / f"{name}.npz"
        values = {}
        with store_errors(file):
            with zipfile.ZipFile(file) as archive:
                for member in archive.namelist():
                    # Read whole: only then zipfile compares the checksum.
                    content = io.BytesIO(archive.read(member))
                    values[member.removesuffix(".npy")] = pickles.load_npy(content)
            return self.regions(name, values)

    def regions(self, name: str, values: dict[str, Any]) -> RegionFeatures:
        """The regions that a file's values are. Raises StoreError, without the file's name."""
        info = values.pop("info", {})
        if "x" not in values or not isinstance(info, Mapping):
            raise StoreError("has no features x, or an info that is no dict")
        known = dict(info)
        if known.get("image_id") == name:
            del known["image_id"]
        features = values.pop("x")
        for key, field in _FIELDS.items():
            of_info, of_file = known.pop(key, None), values.pop(key, None)
            if known.get(field) is None:
                known[field] = of_info if of_file is None else of_file
        objects = known.pop("objects_id", None)
        if known.get("objects") is None:
            known["objects"] = objects
        attributes = known.get("attrs_id")
        if isinstance(attributes, np.ndarray) and attributes.ndim == 2:
            # In newer files: the probability of each attribute.
            known["attrs_prob"] = attributes
            known["attrs_id"] = attributes.argmax(axis=1)
            known["attrs_conf"] = attributes.max(axis=1)
        count = None if known["bbox"] is None else len(known["bbox"])
        if _is_transposed(np.shape(features), count, self.transposed):
            features = np.ascontiguousarray(np.transpose(features))
        return regions_of(features, {**values, **known})


class OpenVQAWriter(NpzWriter):
    """Writes the same files but for ``x``, which is (D, N)."""

    def arrays(self, name: str, regions: RegionFeatures) -> dict[str, Any]:
        # Stored column by column, which tells where N is D.
        arrays = super().arrays(name, regions)
        return arrays | {"x": arrays["x"].T}


class OpenVQAReader(NpzReader):
    """Reads such files, also with an ``x`` of (N, D) where the number of boxes tells it."""

    format_name = "openvqa"
    transposed = True
