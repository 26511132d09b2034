"""What packing leaves of images: by the formats that they went through."""

import dataclasses

import numpy as np
import support

from vmb_d2.stores import FORMATS

TSVS = ("lxmert_tsv", "butd_tsv", "oscar")

# What a format keeps of an image beside its features and image_width and image_height.
_COMMON = {"bbox", "objects", "objects_conf", "attrs_id", "attrs_conf"}
_MOST_PROBABLE = {"attribute_ids", "attribute_scores"}
_FREE = {*_COMMON, *_MOST_PROBABLE, "num_boxes", "cls_prob", "class_logits", "extra"}
KEEPS = {
    "mmf": _FREE,
    "lmdb": _FREE,
    "lxmert_tsv": _COMMON,
    "butd_tsv": {"bbox"},
    "hdf5": {*_COMMON, *_MOST_PROBABLE, "num_boxes", "class_logits"},
    "npz": _FREE,
    "vilbert": {"bbox"},
    "openvqa": _FREE,
    "oscar": {*_COMMON, *_MOST_PROBABLE},
    "uniter": set(),  # in half precision: support.in_uniters_files
}


def full_regions(seed=0, count=5, **changes):
    """Regions with a value in each field."""
    rng = np.random.default_rng([seed, 1])
    values = {
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
            regions = support.in_uniters_files(regions)
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


def read(path, format_name):
    """All images of a store, by name."""
    with FORMATS[format_name].reader(path) as reader:
        return {name: reader.read(name) for name in reader.names()}


def assert_images(found, expected):
    assert sorted(found) == sorted(expected)
    for name, regions in expected.items():
        support.assert_same_regions(found[name], regions)
