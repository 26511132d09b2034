"""Stores for tests: written, read back, and what each format keeps; and LMDBs by others."""

import dataclasses
import pickle

import lmdb
import numpy as np
import support

from vmb_d2.stores import FORMATS
from vmb_d2.structures.regions import RegionFeatures

TSVS = ("lxmert_tsv", "butd_tsv", "oscar")
LMDBS = ("lmdb", "vilbert")
ONE_FILE = [name for name in FORMATS if FORMATS[name].one_file]

# What a format keeps of an image beside its features.
_BOXES = {"bbox", "image_width", "image_height"}
_COMMON = {*_BOXES, "objects", "objects_conf", "attrs_id", "attrs_conf"}
_MOST_PROBABLE = {"attribute_ids", "attribute_scores"}
_FREE = {*_COMMON, *_MOST_PROBABLE, "num_boxes", "cls_prob", "class_logits", "extra"}
KEEPS = {
    "mmf": _FREE,
    "lmdb": _FREE,
    "lxmert_tsv": _COMMON,
    "butd_tsv": _BOXES,
    "hdf5": {*_COMMON, *_MOST_PROBABLE, "num_boxes", "class_logits"},
    "npz": _FREE,
    "vilbert": _BOXES,
    "openvqa": _FREE,
    "oscar": {*_COMMON, *_MOST_PROBABLE},
    "uniter": {"bbox", "num_boxes", "objects", "objects_conf", "confidence", "cls_prob"},
}


def write(path, format_name, images, dtype="float32", **options):
    """Add images, by name, to the store at a path. Returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = FORMATS[format_name].writer(path, dtype, **options)
    for name, regions in images.items():
        writer.write(name, regions)
    writer.close()
    return path


def read(path, format_name):
    """All images of a store, by name."""
    with FORMATS[format_name].reader(path) as reader:
        return {name: reader.read(name) for name in reader.names()}


def foreign_lmdb(path, values, subdir=True):
    """An LMDB that another program wrote; values that aren't bytes get pickled."""
    environment = lmdb.open(str(path), map_size=1 << 24, subdir=subdir)
    with environment, environment.begin(write=True) as transaction:
        for key, value in values.items():
            value = value if isinstance(value, bytes) else pickle.dumps(value)
            transaction.put(key.encode(), value)


def full_regions(seed=0, count=5, **changes):
    """Regions with a value in each field."""
    rng = np.random.default_rng([seed, 1])
    values = {
        "objects_conf": rng.random(count, dtype=np.float32),
        "class_logits": rng.random((count, 10), dtype=np.float32),
        "confidence": np.linspace(1, 0, count + 1, dtype=np.float32)[1:],
        **support.some_attributes(rng, count),
        "further": {"fc7": rng.random((count, 16), dtype=np.float32)},
        "extra": {"split": f"part {seed}", "weights": rng.random(3), "number": seed},
    }
    return support.some_regions(seed, count, **{**values, **changes})


def kept(regions, *formats):
    """What is left of regions that were written in these formats, one after the other."""
    for name in formats:
        if name == "uniter":
            regions = _in_uniters_files(regions)
            continue
        changes = {}
        for key in {*_FREE, "confidence", "further"} - KEEPS[name]:
            if key in ("further", "extra"):
                changes[key] = {}
            else:
                changes[key] = len(regions) if key == "num_boxes" else None
        if name in TSVS:
            changes["features"] = regions.features.astype(np.float32)
        if name in (*TSVS, "hdf5") and not len(regions):
            changes |= {"attrs_id": None, "attrs_conf": None}
        if name == "oscar" and not len(regions):
            changes |= {"attribute_ids": None, "attribute_scores": None}
        elif name == "oscar" and regions.attribute_ids is None and regions.attrs_id is not None:
            changes["attribute_ids"] = regions.attrs_id[:, None]
            changes["attribute_scores"] = regions.attrs_conf[:, None]
        if name in TSVS and not len(regions):  # a line without numbers says less
            changes |= {"features": np.zeros((0, 0), "f4"), "bbox": np.zeros((0, 4), "f4")}
            if name != "butd_tsv":
                changes |= {"objects": np.zeros(0, np.int64), "objects_conf": np.zeros(0, "f4")}
        regions = dataclasses.replace(regions, **changes)
    return regions


def half(array):
    """float32, rounded to float16."""
    return np.asarray(array, np.float16).astype(np.float32)


def _in_uniters_files(regions):
    """What is read of regions that were written as UNITER's npz."""
    confidence, extra = regions.confidence, {}
    if confidence is None and regions.objects_conf is not None:
        confidence = regions.objects_conf.copy()
        confidence[regions.num_boxes :] = 0
    if regions.bbox is not None and regions.image_width and regions.image_height:
        x1, y1, x2, y2 = regions.bbox.astype(np.float64).T
        w, h = regions.image_width, regions.image_height
        boxes = np.stack([x1 / w, y1 / h, x2 / w, y2 / h, (x2 - x1) / w, (y2 - y1) / h], axis=1)
        extra["norm_bb"] = boxes.astype(np.float32).astype(np.float16)
    elif "norm_bb" in regions.extra:
        extra["norm_bb"] = regions.extra["norm_bb"]
    if regions.cls_prob is not None:
        background = np.maximum(1 - regions.cls_prob.sum(axis=1), 0).astype(np.float16)
        extra["background_prob"] = regions.extra.get("background_prob", background)
    cls_prob = None if regions.cls_prob is None else half(regions.cls_prob)
    return RegionFeatures(
        features=regions.features.astype(np.float16),
        bbox=None,
        num_boxes=len(regions) if confidence is None else int((half(confidence) > 0).sum()),
        objects=None if cls_prob is None else cls_prob.argmax(axis=1),
        cls_prob=cls_prob,
        image_width=None,
        image_height=None,
        confidence=None if confidence is None else half(confidence),
        extra=extra,
    )


def assert_images(found, expected):
    assert sorted(found) == sorted(expected)
    for name, regions in expected.items():
        support.assert_same_regions(found[name], regions)


def check(format_, path, images):
    """The store holds exactly these images."""
    assert_images(read(path, format_.name), {n: kept(r, format_.name) for n, r in images.items()})
    with format_.reader(path) as reader:
        assert len(reader) == len(images)
        assert all(name in reader for name in images)


def kinds_of(path):
    """The formats for whose store a path is taken."""
    return [name for name, format_ in FORMATS.items() if format_.reader.is_store(path)]


def numbered(numbers):
    return {f"{i % 3}/image {i}": support.some_regions(i) for i in numbers}
