"""Stores for tests: what is written to all formats and read back, and LMDBs by others."""

import dataclasses
import pickle

import lmdb
import numpy as np
import support

from vmb_d2.stores import FORMATS

TSVS = ("lxmert_tsv", "butd_tsv", "oscar")

# The fields that a format doesn't keep. Beyond these, the TSVs keep the features as float32 only,
# and the number of rows in place of num_boxes.
_MOST_PROBABLE = ("attribute_ids", "attribute_scores")
_ATTRIBUTES = ("attrs_id", "attrs_conf", *_MOST_PROBABLE)
_CLASSES = ("objects", "objects_conf", *_ATTRIBUTES)
NOT_KEPT = {
    "mmf": ("confidence",),
    "npz": ("confidence",),
    "lmdb": ("confidence",),
    "lxmert_tsv": ("confidence", "cls_prob", "class_logits", "extra", *_MOST_PROBABLE),
    "butd_tsv": ("confidence", "cls_prob", "class_logits", "extra", *_CLASSES),
    "hdf5": ("confidence", "cls_prob", "extra"),
    "vilbert": ("confidence", "cls_prob", "class_logits", "extra", *_CLASSES),
    "openvqa": ("confidence",),
    "oscar": ("confidence", "cls_prob", "class_logits", "extra"),
}
LMDBS = ("lmdb", "vilbert")
ONE_FILE = [name for name in FORMATS if FORMATS[name].one_file]


def write(kind, path, images, dtype="float32", **options):
    """Write {name: regions} to a store of the format `kind`; returns its path."""
    writer = FORMATS[kind].writer(path, dtype, **options)
    for name, regions in images.items():
        writer.write(name, regions)
    writer.close()
    return path


def foreign_lmdb(path, values, subdir=True):
    """An LMDB that another program wrote; values that aren't bytes get pickled."""
    environment = lmdb.open(str(path), map_size=1 << 24, subdir=subdir)
    with environment, environment.begin(write=True) as transaction:
        for key, value in values.items():
            value = value if isinstance(value, bytes) else pickle.dumps(value)
            transaction.put(key.encode(), value)


def everything(seed=0, count=5):
    """Regions with a value in each field."""
    rng = np.random.default_rng([seed, 1])
    attributes = support.some_attributes(rng, count)
    return support.some_regions(
        seed,
        count,
        objects_conf=rng.random(count, dtype=np.float32),
        confidence=np.linspace(1, 0, count + 1, dtype=np.float32)[1:],
        class_logits=rng.random((count, 10), dtype=np.float32),
        **attributes,
        extra={"split": "val", "weights": [1.5, 2]},
    )


def kept(format_, regions):
    """What of the regions a format gives back."""
    if format_.name == "uniter":
        return support.in_uniters_files(regions)
    lost = {f: {} if f == "extra" else None for f in NOT_KEPT[format_.name]}
    if format_.name in (*TSVS, "vilbert"):
        lost["num_boxes"] = len(regions)
    if format_.name in TSVS:
        lost["features"] = regions.features.astype(np.float32)
    return dataclasses.replace(regions, **lost)


def check(format_, path, images):
    """The store holds exactly these images."""
    with format_.reader(path) as reader:
        names = list(reader.names())
        assert sorted(names) == sorted(images)
        assert len(reader) == len(images)
        for name, regions in images.items():
            assert name in reader
            support.assert_same_regions(reader.read(name), kept(format_, regions))


def kinds_of(path):
    """The formats for whose store a path is taken."""
    return [name for name, format_ in FORMATS.items() if format_.reader.is_store(path)]


def numbered(numbers):
    return {f"{i % 3}/image {i}": support.some_regions(i) for i in numbers}
