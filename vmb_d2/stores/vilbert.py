"""ViLBERT's LMDB: as MMF's, with other keys in the pickled dicts."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import StoreError, first_line
from ..structures.regions import RegionFeatures
from .fields import regions_of
from .lmdb_store import LMDBReader, LMDBWriter

# Keys of an item that are fields of RegionFeatures.
_KEYS = {"boxes": "bbox", "image_h": "image_height", "image_w": "image_width"}


class ViLBERTWriter(LMDBWriter):
    """Writes ViLBERT's LMDB, which has nothing of classes. What is unknown is left out."""

    keeps = frozenset(_KEYS.values())

    def item(self, name: str, regions: RegionFeatures) -> dict[str, Any]:
        values = {key: getattr(regions, field) for key, field in _KEYS.items()}
        return {
            "image_id": name,
            **{key: value for key, value in values.items() if value is not None},
            "num_boxes": len(regions),  # some of its readers reshape by it
            "features": self.features_of(regions),
        }

    @staticmethod
    def bytes_per_image(regions: int, dimension: int, classes: int, itemsize: int) -> int:
        return regions * (dimension * itemsize + 4 * 4) + 3500


class ViLBERTReader(LMDBReader):
    """Reads ViLBERT's LMDBs, those with arrays in base64 too, and with more in their items."""

    format_name = "vilbert"

    def regions(self, name: str, item: Mapping[str, Any]) -> RegionFeatures:
        known = {_KEYS.get(key, key): value for key, value in item.items()}
        if str(known.get("image_id")) == name:
            del known["image_id"]
        try:
            boxes = known["bbox"] = _table(known.get("bbox"), (-1, 4))
            count = known.get("num_boxes") if boxes is None else len(boxes)
            if count is not None:
                shape = (int(count), -1 if int(count) else 0)
                for key in ("features", "cls_prob"):
                    known[key] = _table(known.get(key), shape)
        except (ValueError, TypeError) as error:
            raise StoreError(f"arrays that aren't whole ({first_line(error)})") from error
        return regions_of(known.pop("features"), known)


def _table(value: Any, shape: tuple[int, int]) -> Any:
    """An array of a shape where ``value`` is flat, or base64 of float32; else the value."""
    if isinstance(value, (str, bytes)):
        value = np.frombuffer(base64.b64decode(value, validate=True), "<f4").astype(np.float32)
    is_flat = isinstance(value, np.ndarray) and value.ndim == 1
    return value.reshape(shape) if is_flat else value
