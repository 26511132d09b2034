"""MMF's files: content, order, wholeness, and who can read them."""

import contextlib
import os

import numpy as np
import pytest
import support
from hypothesis import given
from hypothesis import strategies as st

from vmb_d2.stores.mmf import MMFReader, MMFWriter
from vmb_d2.stores.npz import NpzWriter


@pytest.fixture
def regions():
    return support.some_regions()


def test_features_alone_are_read_too(tmp_path, regions):
    MMFWriter(tmp_path).write("a", regions)
    (tmp_path / "a_info.npy").unlink()
    reader = MMFReader(tmp_path)
    assert list(reader.names()) == ["a"]
    assert np.array_equal(reader.read("a").features, regions.features)
    assert reader.read("a").bbox is None


# Parts whose sums are files of each other, hidden ones, and lengths around the limits.
parts = st.sampled_from(["x", "_info", ".npy", "_info.npy", ".npz", ".", "/", "ü", "日本"])
parts |= st.sampled_from(["l" * 57, "ü" * 60, "日" * 79, "\udcff" * 61])
texts = st.lists(parts, min_size=1, max_size=5).map("".join)


file_names = st.tuples(texts, st.sampled_from(["_info.npy", ".npy", ".npz", ""])).map("".join)
file_names = file_names.filter(lambda name: len(os.fsencode(name)) < 200)
file_names = file_names.filter(lambda name: not {"", ".", ".."} & set(name.split("/")))


@given(st.lists(file_names, max_size=8), st.sampled_from([MMFWriter, NpzWriter]))
def test_what_is_present_is_what_a_naive_loop_finds(tmp_path_factory, files, kind):
    store = tmp_path_factory.mktemp("store")
    for file in files:
        with contextlib.suppress(OSError):  # below a file
            (store / file).parent.mkdir(parents=True, exist_ok=True)
            (store / file).touch()
    names = {file[:end] for file in files for end in range(1, len(file) + 1)}
    expected = {
        name
        for name in names
        if not name.rpartition("/")[2].startswith(".")
        and not name.endswith("/")
        and all((store / (name + suffix)).exists() for suffix in kind.suffixes)
    }
    writer = kind(store)
    assert writer.present(name for name in names) == expected
    assert {name for name in names if name in kind(store)} == expected
