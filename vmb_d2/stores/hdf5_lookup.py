"""Which of many names an HDF5 file has.

A million are looked up one after the other; what the library does for each counts. Through a Python
file, as our writer has it open, each read alone costs as much as all the rest.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

import h5py


def opened_to_look(path: str | Path) -> h5py.File:
    """The file as it is on the disk, read by HDF5 itself. Raises what h5py does."""
    h5 = h5py.File(path, "r", locking=False)
    # From the first read on as large as it may become: it is to hold the index of all names, of
    # which each listing and each question needs another place.
    cache = h5.id.get_mdc_config()
    cache.set_initial_size = True
    cache.initial_size = cache.max_size
    h5.id.set_mdc_config(cache)
    return h5


def those_of(h5: h5py.File, folder: str, keys: Collection[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Which of ``keys`` a group has, in their order; whether they surely are images.

    Args:
        folder: the group's path; ``""`` for the file itself. There needn't be one.
        keys: names in it. A run's are about in the order in which the file has them.

    Raises what h5py does.
    """
    group = h5 if not folder else h5.get(folder)
    if isinstance(group, h5py.Group):
        there: set[bytes] = set()
        group.id.links.iterate(there.add, order=h5py.h5.ITER_NATIVE)
        for key in keys:
            if key in there:
                yield key, _surely_has(group.id, key + b"/features")


def _surely_has(group: h5py.h5g.GroupID, path: bytes) -> bool:
    """Whether a path is there. False also where the library can't say."""
    try:
        return group.links.exists(path)
    except (KeyError, RuntimeError):
        return False
