"""Oscar's TSVs: a folder with the features and the labels of each image, each with a .lineidx."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..errors import StoreError
from ..structures.regions import RegionFeatures
from ..utils.files import sync_folder
from .base import store_errors
from .fields import regions_of
from .line_files import LineReader, LinesReader, LinesWriter, LineWriter
from .line_index import OffsetIndex, first_line_of

FEATURES = "features.tsv"
GEOMETRY = 6  # numbers behind the features: RegionFeatures.normalized_boxes
_ATTRIBUTES = ("attrs_id", "attrs_conf", "attribute_ids", "attribute_scores")
_GEOMETRY_ERROR = 1e-3  # that rounding can have left in other programs' files


def features_file(path: Path) -> Path:
    """The TSV of features of a store, which may be given as this file itself."""
    return path / FEATURES if path.is_dir() else path


def labels_file(features: Path) -> Path:
    """The TSV of labels beside one of features: ``train.label.tsv`` to ``train.feature.tsv``."""
    return features.with_name(features.name.replace("feature", "label"))


class OscarWriter(LinesWriter):
    """Adds a row to both TSVs of a folder, the labels' first: an image is there by its features.

    The labels have ``class_names``; without these "class 17", and "" where a class is unknown.
    Attributes have their names where these are known. :meth:`write` raises ConfigError where an
    image has another number of classes than there are names, or an attribute without a name.
    """

    needs_class_names = True
    keeps = frozenset(
        {"bbox", "objects", "objects_conf", "image_width", "image_height", *_ATTRIBUTES}
    )
    without: ClassVar = {
        "bbox": "as zeros",
        "image_width": "as zeros",
        "image_height": "as zeros",
        "objects": "with empty class names",
    }

    def _open(self) -> None:
        self.path.mkdir(exist_ok=True)
        sync_folder(self.path.parent)
        features = self.path / FEATURES
        labels = labels_file(features)
        self._features = LineWriter(features, OffsetIndex, _features_of, self._opened)
        if self._features.found and not labels.exists():
            raise StoreError(f"{labels}: is missing beside {FEATURES}")
        names = self._features.found
        self._labels = LineWriter(labels, OffsetIndex, _labels_of, self._opened, names)
        self._files = [self._labels, self._features]

    @classmethod
    def problems(cls, names):
        for name in names:
            yield from super().problems([name])
            if name != name.strip():
                yield name, "blanks at an end, which Oscar cuts off"

    def write(self, name: str, regions: RegionFeatures) -> None:
        labels = _row(name, self._labels_to_write(regions))
        geometry = regions.normalized_boxes()
        if geometry is None:
            geometry = np.zeros((len(regions), GEOMETRY), np.float32)
        features = np.concatenate([regions.features, geometry], axis=1, dtype="<f4")
        content = {
            "num_boxes": len(regions),
            "image_h": regions.image_height,
            "image_w": regions.image_width,
            "features": base64.b64encode(features.tobytes()).decode(),
        }
        self._labels.write(name, labels)
        self._features.write(name, _row(name, {k: v for k, v in content.items() if v is not None}))

    def _labels_to_write(self, regions: RegionFeatures) -> list[dict[str, Any]]:
        names, objects = self.class_names, regions.objects
        if regions.cls_prob is not None:
            names = names.for_columns(regions.cls_prob.shape[1])
        columns: dict[str, list[Any]] = {"class": [""] * len(regions)}
        if objects is not None:
            columns = {"class": [names[int(k)] for k in objects], "class_id": objects.tolist()}
        if regions.objects_conf is not None:
            columns["conf"] = regions.objects_conf.tolist()
        if regions.bbox is not None:
            columns["rect"] = regions.bbox.tolist()
        if (attributes := regions.top_attributes()) is not None:
            known = [
                (i[s > 0].tolist(), s[s > 0].tolist()) for i, s in zip(*attributes, strict=True)
            ]
            if names.attributes is not None:
                columns["attributes"] = [names.attributes_of(ids) for ids, _ in known]
            columns["attribute_ids"] = [ids for ids, _ in known]
            columns["attr_scores"] = [scores for _, scores in known]
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


class OscarReader(LinesReader):
    """Reads such a folder, or a TSV of features, with the TSV of labels beside it if there is one.

    Labels of other programs have names only, which become ``extra["class_names"]``.
    """

    _labels: LineReader | None = None

    def _open(self) -> None:
        features = features_file(self.path)
        labels = labels_file(features)
        self._lines = LineReader(features, OffsetIndex, _features_of, self._opened)
        if labels != features and labels.exists():
            self._labels = LineReader(labels, OffsetIndex, _labels_of, self._opened)

    @classmethod
    def is_store(cls, path: Path) -> bool:
        name, _, content = first_line_of(features_file(path)).partition(b"\t")
        return bool(name) and content.startswith(b"{") and b'"features"' in content

    def read(self, name: str) -> RegionFeatures:
        row = self._lines.line(name)
        labels = None
        if self._labels is not None and name in self._labels.names:
            labels = self._labels.line(name)
        with store_errors(f"{self.path}: {name!r}"):
            known = _features_of(row) | ({} if labels is None else _labels_of(labels))
            features, count = known.pop("features"), known.pop("count", None)
            if count not in (None, len(features)):
                raise StoreError(f"{count} labels of {len(features)} boxes")
            return regions_of(features, known)


def _row(name: str, content: Any) -> bytes:
    return f"{name}\t{json.dumps(content)}\n".encode()


def _content(row: bytes) -> Any:
    columns = row.rstrip(b"\r\n").split(b"\t")
    if len(columns) != 2:
        raise StoreError(f"a row of {len(columns)} columns, not 2")
    return json.loads(columns[1])


def _features_of(row: bytes) -> dict[str, Any]:
    """The fields of RegionFeatures that a row of features holds. Any error says it is damaged."""
    content = _content(row)
    count = content["num_boxes"]
    values = np.frombuffer(base64.b64decode(content["features"], validate=True), "<f4")
    rows = values.reshape(count, -1) if count else values.reshape(0, 0)
    if count and not _ends_in_boxes(rows):
        raise StoreError(f"features of {rows.shape[1]} numbers, the last {GEOMETRY} no box's")
    return {
        "features": rows[:, :-GEOMETRY].astype(np.float32),
        "num_boxes": count,
        "image_width": content.get("image_w"),
        "image_height": content.get("image_h"),
    }


def _ends_in_boxes(rows: np.ndarray) -> bool:
    """Whether the last numbers can be :meth:`RegionFeatures.normalized_boxes`, or zeros."""
    if rows.shape[1] < GEOMETRY:
        return False
    first, second, sides = np.split(rows[:, -GEOMETRY:], 3, axis=1)
    with np.errstate(all="ignore"):
        return np.allclose(second - first, sides, atol=_GEOMETRY_ERROR)


def _labels_of(row: bytes) -> dict[str, Any]:
    """The fields of RegionFeatures that a row of labels holds, and the ``count`` of labels.

    Any error says that it is damaged.
    """
    labels = _content(row)
    count = len(labels)
    names = [label["class"] for label in labels]
    boxes = _column(labels, "rect", np.float32)
    known: dict[str, Any] = {
        "bbox": None if boxes is None else boxes.reshape(count, 4),
        "objects": _column(labels, "class_id", np.int64),
        "objects_conf": _column(labels, "conf", np.float32),
        "count": count,
        **_attributes_of(labels),
    }
    if known["objects"] is None and any(names):
        known["class_names"] = names
    return known


def _attributes_of(labels: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """The fields of attributes, padded with scores of 0; none where a label has no ids of them."""
    if not labels or not all("attribute_ids" in label for label in labels):
        return {}
    most = max(1, *(len(label["attribute_ids"]) for label in labels))
    ids = np.zeros((len(labels), most), np.int64)
    scores = np.zeros((len(labels), most), np.float32)
    for row, label in enumerate(labels):
        number = len(label["attribute_ids"])
        ids[row, :number], scores[row, :number] = label["attribute_ids"], label["attr_scores"]
    found = (ids[:, 0].copy(), scores[:, 0].copy(), ids, scores)
    return dict(zip(_ATTRIBUTES, found, strict=True))


def _column(labels: list[dict[str, Any]], key: str, dtype: type) -> np.ndarray | None:
    """What all labels have under a key; None where one of them hasn't."""
    if not all(key in label for label in labels):
        return None
    return np.array([label[key] for label in labels], dtype)
