"""MMF's files: content, order, wholeness, and who can read them."""

import contextlib
import os

import numpy as np
import pytest
import support
from hypothesis import given
from hypothesis import strategies as st

from vmb_d2.errors import OutputError
from vmb_d2.stores.mmf import MMFReader, MMFWriter
from vmb_d2.stores.npz import NpzWriter


@pytest.fixture
def regions():
    return support.some_regions()


def test_what_mmf_reads(tmp_path, regions):
    MMFWriter(tmp_path / "new").write("a", regions)
    features = np.load(tmp_path / "new" / "a.npy")
    assert features.dtype == np.float32
    assert np.array_equal(features, regions.features)
    info = np.load(tmp_path / "new" / "a_info.npy", allow_pickle=True).item()
    kinds = {
        k: (v.dtype.name, v.shape) if isinstance(v, np.ndarray) else type(v)
        for k, v in info.items()
    }
    assert kinds == {
        "bbox": ("float32", (5, 4)),
        "num_boxes": int,
        "objects": ("int64", (5,)),
        "cls_prob": ("float32", (5, 9)),
        "image_width": int,
        "image_height": int,
    }
    for key in ("bbox", "objects", "cls_prob"):
        assert np.array_equal(info[key], getattr(regions, key))


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


@given(st.lists(texts, max_size=8), st.sampled_from([MMFWriter, NpzWriter]))
def test_names_that_cant_be_kept_are_those_of_a_naive_loop(names, kind):
    longest = 255 - len("..tmp") - max(len(suffix) for suffix in kind.suffixes)
    expected = []
    for name in sorted(set(names)):
        if max(len(os.fsencode(part)) for part in name.split("/")) > longest:
            expected.append((name, "longer"))
        if kind is MMFWriter and name + "_info" in names:
            expected.append((name, name + "_info.npy would"))
    found = list(kind.problems(iter(names)))
    assert [name for name, _ in found] == [name for name, _ in expected]
    pairs = zip(found, expected, strict=True)
    assert all(reason.startswith(begin) for (_, reason), (_, begin) in pairs)


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


def test_a_file_of_an_image_of_an_earlier_run_is_not_overwritten(tmp_path, regions):
    MMFWriter(tmp_path).write("x", regions)
    MMFWriter(tmp_path).write("y_info", regions)
    for name, other in (("x_info", "x"), ("y", "y_info")):
        with pytest.raises(OutputError, match=f"'{name}' would share a file with '{other}'"):
            MMFWriter(tmp_path).write(name, regions)
    support.assert_same_regions(MMFReader(tmp_path).read("x"), regions)
