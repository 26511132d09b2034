"""MMF's files: content, order, wholeness, and who can read them."""

import contextlib
import dataclasses
import os

import numpy as np
import pytest
import support
from hypothesis import given
from hypothesis import strategies as st

from vmb_d2.errors import OutputError, StoreError
from vmb_d2.stores.mmf import MMFReader, MMFWriter
from vmb_d2.stores.npz import NpzWriter
from vmb_d2.utils import safe_pickle as pickles


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


def test_read_back(tmp_path, regions):
    regions = dataclasses.replace(regions, class_logits=np.ones((5, 10), np.float32))
    MMFWriter(tmp_path).write("a/b", regions)
    support.assert_same_regions(MMFReader(tmp_path).read("a/b"), regions)


def test_features_alone_are_read_too(tmp_path, regions):
    MMFWriter(tmp_path).write("a", regions)
    (tmp_path / "a_info.npy").unlink()
    reader = MMFReader(tmp_path)
    assert list(reader.names()) == ["a"]
    assert np.array_equal(reader.read("a").features, regions.features)
    assert reader.read("a").bbox is None


def test_done_only_when_both_files_are_there(tmp_path, regions):
    MMFWriter(tmp_path).write("a", regions)
    assert "a" in MMFWriter(tmp_path)
    for missing in ("a.npy", "a_info.npy"):
        content = (tmp_path / missing).read_bytes()
        (tmp_path / missing).unlink()
        assert "a" not in MMFWriter(tmp_path)
        (tmp_path / missing).write_bytes(content)


def test_features_come_last_and_each_file_at_once(tmp_path, regions, monkeypatch):
    moved = []
    replace = os.replace

    def record(source, target):
        moved.append((os.path.basename(target), os.path.getsize(source)))
        replace(source, target)

    monkeypatch.setattr(os, "replace", record)
    MMFWriter(tmp_path).write("a", regions)
    assert [name for name, _ in moved] == ["a_info.npy", "a.npy"]
    assert all(os.path.getsize(tmp_path / name) == size for name, size in moved)
    assert sorted(os.listdir(tmp_path)) == ["a.npy", "a_info.npy"]


def test_no_room_leaves_no_part_of_a_file(tmp_path, regions):
    writer = MMFWriter(tmp_path)
    writer.write("a", regions)
    with (
        support.file_size_limit(300),
        pytest.raises(OutputError, match=r"b_info\.npy: can't be written"),
    ):
        writer.write("b", regions)
    assert sorted(os.listdir(tmp_path)) == ["a.npy", "a_info.npy"]
    assert "b" not in writer


def test_folder_that_cant_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file: File exists"):
        MMFWriter(tmp_path / "file")
    with pytest.raises(OutputError, match="Not a directory"):
        MMFWriter(tmp_path / "file" / "below")


@pytest.mark.parametrize("name", ["a", "sub/a"])
def test_a_folder_that_vanishes_is_not_made_again(tmp_path, regions, name):
    writer = MMFWriter(tmp_path / "out")
    (tmp_path / "out").rmdir()
    with pytest.raises(OutputError, match="No such file"):
        writer.write(name, regions)
    assert not (tmp_path / "out").exists()


def test_names_that_cant_be_kept():
    names = ["x", "x_info", "y_info", "l" * 250, "sub/" + "l" * 230]
    problems = dict(MMFWriter.problems(names))
    assert sorted(problems) == ["l" * 250, "x"]
    assert "x_info" in problems["x"]


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


def test_a_leftover_of_a_death_is_no_image_and_goes(tmp_path, regions):
    (tmp_path / ".a.npy.tmp").write_bytes(b"half")
    writer = MMFWriter(tmp_path)
    assert "a" not in writer
    assert list(MMFReader(tmp_path).names()) == []
    writer.write("a", regions)
    assert sorted(os.listdir(tmp_path)) == ["a.npy", "a_info.npy"]


def test_each_folder_is_listed_once_and_only_where_asked_for(tmp_path, regions, monkeypatch):
    writer = MMFWriter(tmp_path)
    for name in ("a/1", "a/2", "b/1", "c"):
        writer.write(name, regions)
    asked = []
    listdir = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: asked.append(path) or listdir(path))
    writer = MMFWriter(tmp_path)
    for _ in range(2):
        assert "a/1" in writer
        assert "a/3" not in writer
        assert "new/1" not in writer
    writer.write("a/3", regions)
    assert "a/3" in writer
    assert asked == [tmp_path / "a", tmp_path / "new"]


def test_info_names_no_module_that_old_numpy_lacks(regions):
    value = {"bbox": regions.bbox, "text": "numpy._core.multiarray is only text"}
    content = pickles.dump_npy(value)
    assert b"cnumpy._core" not in content
    assert b"numpy.core.multiarray" in content
    assert b"numpy._core.multiarray is only text" in content


def test_info_is_what_numpy_itself_would_give_back(tmp_path, regions):
    path = tmp_path / "x.npy"
    path.write_bytes(pickles.dump_npy({"bbox": regions.bbox, "n": 3}))
    value = np.load(path, allow_pickle=True)
    assert value.shape == ()
    assert np.array_equal(value.item()["bbox"], regions.bbox)
    assert value.item()["n"] == 3


def test_what_numpy_saves_is_read(tmp_path, regions):
    value = {"bbox": regions.bbox, "n": np.int64(3), "s": "x", "image_id": b"7", "list": [1, (2,)]}
    np.save(tmp_path / "x.npy", value)
    with open(tmp_path / "x.npy", "rb") as file:
        found = pickles.load_npy(file)
    assert np.array_equal(found.pop("bbox"), value.pop("bbox"))
    assert found == value


def test_a_pickle_that_runs_code_is_refused(tmp_path, regions):
    MMFWriter(tmp_path).write("a", regions)
    evil = str(tmp_path / "made")
    np.save(tmp_path / "a_info.npy", {"bbox": support.Runs(evil)}, allow_pickle=True)
    with pytest.raises(StoreError, match=r"a_info\.npy: .*posix\.mkdir"):
        MMFReader(tmp_path).read("a")
    assert not os.path.exists(evil)


def test_a_pickle_that_takes_all_memory_is_refused():
    pickle = b"\x80\x03}r" + (1 << 31).to_bytes(4, "little") + b"."
    with pytest.raises(StoreError, match="larger than itself"):
        pickles.loads(pickle)


def test_damaged_files_are_one_line_each(tmp_path, regions):
    MMFWriter(tmp_path).write("a", regions)
    for file in ("a.npy", "a_info.npy"):
        whole = (tmp_path / file).read_bytes()
        for size in range(0, len(whole), 37):
            (tmp_path / file).write_bytes(whole[:size])
            with pytest.raises(StoreError, match=file) as caught:
                MMFReader(tmp_path).read("a")
            assert "\n" not in str(caught.value)
        (tmp_path / file).write_bytes(whole)
