"""Stores for tests: written by this project, and LMDBs by others."""

import pickle

import lmdb

from vmb_d2.stores import FORMATS


def write(kind, path, images, dtype="float32", **options):
    """Write {name: regions} to a store of the format ``kind``; returns its path."""
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
