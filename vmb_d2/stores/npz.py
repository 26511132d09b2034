"""The npz files of bottom-up-attention.pytorch, and as OpenVQA takes them: one an image."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..errors import StoreError, first_line
from ..structures.regions import RegionFeatures
from ..utils import safe_pickle as pickles
from .folder import FolderReader, FolderWriter, first_file, scan
from .mmf import regions_of

# The formats of npz files that have a folder of their own below an output folder, by its name. What
# is in such a folder isn't among the npz files around it.
PLACES = ("openvqa", "uniter")


def npz_kind(folder: Path) -> str | None:
    """The format that the npz files below a folder have: "npz", or one of ``PLACES``.

    The first file tells; a damaged one leaves it to the folder's name. None: there is no file.
    """
    file = first_file(folder, ".npz", leave_out=_stores_below(folder))
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
                elif value is None:
                    continue
                else:
                    member = io.BytesIO()
                    np.save(member, np.asanyarray(value))
                    content = member.getbuffer()
                archive.writestr(zipfile.ZipInfo(f"{key}.npy"), content)
        yield file.getvalue()

    def arrays(self, name: str, regions: RegionFeatures) -> dict[str, Any]:
        """What is in an image's file, by key; None for what isn't."""
        return {
            "x": self.features_of(regions),
            "bbox": None if regions.bbox is None else np.asarray(regions.bbox, np.float32),
            "num_bbox": len(regions),
            "image_h": regions.image_height,
            "image_w": regions.image_width,
            "info": _info_of(name, regions),
        }

    @staticmethod
    def bytes_per_image(regions: int, dimension: int, classes: int, itemsize: int) -> int:
        return regions * (dimension * itemsize + classes * 4 + 4 * 4 + 8 + 4) + 2500


class NpzReader(FolderReader):
    """Reads such files, compressed ones too, whoever wrote them; only ``x`` has to be there.

    It may be (N, D) or (D, N), as the number of boxes says.
    """

    suffixes = (".npz",)
    transposed: ClassVar[bool] = False  # whether x is (D, N) where a file doesn't tell

    def names(self) -> Iterator[str]:
        return scan(self.path, self.suffixes, _stores_below(self.path))

    def read(self, name: str) -> RegionFeatures:
        file = self.path / f"{name}.npz"
        try:
            return self.regions(name, self._load(file))
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

    def regions(self, name: str, values: dict[str, Any]) -> RegionFeatures:
        """The regions that a file's values are. Raises StoreError, without the file's name."""
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
        if np.ndim(known.get("attrs_id")) == 2:  # of newer files: the probability of each attribute
            probabilities = known["attrs_prob"] = known.pop("attrs_id")
            known["attrs_id"] = np.argmax(probabilities, axis=1)
            known["attrs_conf"] = np.max(probabilities, axis=1)
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
    """Reads such files. An ``x`` as :class:`NpzReader` has it is read where the boxes say so."""

    transposed = True
