"""The schemas of docs/formats.md, as NumPy, h5py and LMDB read the files."""

import base64
import csv
import pickle
import sys

import h5py
import lmdb
import numpy as np
import pytest
import store_files
import support

NAME = "sub/ü 1"


def of_mmf(path):
    info = np.load(path / f"{NAME}_info.npy", allow_pickle=True).item()
    return {"features": np.load(path / f"{NAME}.npy"), **info}


def of_npz(path):
    with np.load(path / f"{NAME}.npz", allow_pickle=True) as file:
        values = dict(file)
    return values | {f"info {key}": value for key, value in values.pop("info").item().items()}


def of_hdf5(path):
    with h5py.File(path) as file:
        group = file[NAME]
        assert group["features"].chunks == group["features"].shape
        return {**{key: dataset[()] for key, dataset in group.items()}, **group.attrs}


def of_lmdb(path):
    with lmdb.open(str(path), readonly=True, lock=False) as store, store.begin() as transaction:
        assert pickle.loads(transaction.get(b"keys")) == [b"a", NAME.encode()]
        return pickle.loads(transaction.get(NAME.encode()))


def of_lxmert_tsv(path):
    csv.field_size_limit(sys.maxsize)
    with open(path) as file:
        item = next(csv.DictReader(file, LXMERT, delimiter="\t"))
    assert item["img_id"] == NAME
    for key, kind_ in LXMERT.items():
        dtype, *shape = kind_.split()
        if shape:
            array = np.frombuffer(base64.b64decode(item[key]), dtype)
            item[key] = array.reshape([int(size) for size in shape])
        elif dtype == "int":
            item[key] = int(item[key])
    return item


READERS = {
    "mmf": of_mmf,
    "npz": of_npz,
    "openvqa": of_npz,
    "hdf5": of_hdf5,
    "lmdb": of_lmdb,
    "vilbert": of_lmdb,
    "lxmert_tsv": of_lxmert_tsv,
}
MMF = {
    "features": "float32 5 16",
    "bbox": "float32 5 4",
    "num_boxes": "int",
    "objects": "int64 5",
    "cls_prob": "float32 5 9",
    "image_width": "int",
    "image_height": "int",
    "class_logits": "float32 5 10",
    "objects_conf": "float32 5",
    "attrs_id": "int64 5",
    "attrs_conf": "float32 5",
    "attribute_ids": "int64 5 16",
    "attribute_scores": "float32 5 16",
}
NPZ = {
    "x": "float32 5 16",
    "bbox": "float32 5 4",
    "num_bbox": "int64",
    "image_h": "int64",
    "image_w": "int64",
    "info image_id": "str",
    "info image_h": "int",
    "info image_w": "int",
    "info num_boxes": "int",
    "info objects_id": "int64 5",
    "info objects_conf": "float32 5",
    "info cls_prob": "float32 5 9",
    "info class_logits": "float32 5 10",
    "info attrs_id": "int64 5",
    "info attrs_conf": "float32 5",
    "info attribute_ids": "int64 5 16",
    "info attribute_scores": "float32 5 16",
}
LXMERT = {
    "img_id": "str",
    "img_h": "int",
    "img_w": "int",
    "objects_id": "int64 5",
    "objects_conf": "float32 5",
    "attrs_id": "int64 5",
    "attrs_conf": "float32 5",
    "num_boxes": "int",
    "boxes": "float32 5 4",
    "features": "float32 5 16",
}
SCHEMAS = {
    "lxmert_tsv": LXMERT,
    "mmf": MMF,
    "lmdb": {**MMF, "feature_path": "str"},
    "npz": NPZ,
    "openvqa": {**NPZ, "x": "float32 16 5"},
    "hdf5": {
        "features": "float32 5 16",
        "boxes": "float32 5 4",
        "obj_id": "int64 5",
        "obj_conf": "float32 5",
        "img_w": "int64",
        "img_h": "int64",
        "logits": "float32 5 10",
        "attr_id": "int64 5",
        "attr_conf": "float32 5",
        "attribute_ids": "int64 5 16",
        "attribute_scores": "float32 5 16",
        "num_boxes": "int64",
    },
    "vilbert": {
        "image_id": "str",
        "image_h": "int",
        "image_w": "int",
        "num_boxes": "int",
        "boxes": "float32 5 4",
        "features": "float32 5 16",
    },
}
FIELDS = {
    "bbox boxes": "bbox",
    "objects objects_id obj_id": "objects",
    "objects_conf obj_conf": "objects_conf",
    "class_logits logits": "class_logits",
    "attrs_id attr_id": "attrs_id",
    "attrs_conf attr_conf": "attrs_conf",
    "attribute_ids": "attribute_ids",
    "attribute_scores": "attribute_scores",
    "image_width image_w img_w": "image_width",
    "image_height image_h img_h": "image_height",
}
FIELD_OF = {key: field for keys, field in FIELDS.items() for key in keys.split()}


def kind(value):
    is_array = isinstance(value, (np.ndarray, np.generic))
    return " ".join(map(str, (value.dtype, *value.shape))) if is_array else type(value).__name__


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_field(tmp_path, name):
    regions = store_files.full_regions(extra={})
    images = {NAME: regions, "a": support.some_regions(1)}
    values = READERS[name](store_files.write(tmp_path / "store", name, images))
    assert {key: kind(value) for key, value in values.items()} == SCHEMAS[name]
    features = values["x" if "x" in values else "features"]
    assert np.array_equal(features.T if name == "openvqa" else features, regions.features)
    rows = {"num_bbox", "num_boxes"} if name in ("vilbert", "lxmert_tsv") else {"num_bbox"}
    for key, value in values.items():
        if (field := FIELD_OF.get(key.removeprefix("info "))) is not None:
            assert np.array_equal(value, getattr(regions, field)), key
        elif "num_" in key:
            assert value == (len(regions) if key in rows else regions.num_boxes), key
        elif kind(value) == "str":
            assert value == NAME


@pytest.mark.parametrize("name", SCHEMAS)
def test_what_is_unknown_is_left_out(tmp_path, name):
    """But for attributes, zeros in two formats; and confidences that MMF's cls_prob tells."""
    images = {NAME: support.some_regions(), "a": support.some_regions(1)}
    values = READERS[name](store_files.write(tmp_path / "store", name, images))
    unknown = ("class_logits", "attrs_id", "attrs_conf", "attribute_ids", "attribute_scores")
    unknown += ("objects_conf",) if name in ("mmf", "lmdb") else ()
    lacking = set(SCHEMAS[name]) - set(values)
    expected = {key for key in SCHEMAS[name] if FIELD_OF.get(key.removeprefix("info ")) in unknown}
    if name in ("hdf5", "lxmert_tsv"):
        zeros = {key for key in SCHEMAS[name] if FIELD_OF.get(key) in ("attrs_id", "attrs_conf")}
        assert not any(values[key].any() for key in zeros)
        expected -= zeros
    assert lacking == expected
