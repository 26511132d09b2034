"""MMF's files: content, order, wholeness, and who can read them."""

import dataclasses
import os

import numpy as np
import pytest
import support

from vmb_d2.errors import OutputError
from vmb_d2.extractor import RegionFeatures
from vmb_d2.mmf_files import MMFWriter, pickled_npy, read_mmf


@pytest.fixture
def regions():
    rng = np.random.default_rng(0)
    return RegionFeatures(
        features=rng.random((5, 16), dtype=np.float32),
        bbox=rng.random((5, 4), dtype=np.float32),
        num_boxes=4,
        objects=rng.integers(0, 9, 5),
        cls_prob=rng.random((5, 9), dtype=np.float32),
        image_width=640,
        image_height=427,
    )


def test_what_mmf_reads(tmp_path, regions):
    MMFWriter(tmp_path / "new" / "folder").write("a", regions)
    features = np.load(tmp_path / "new" / "folder" / "a.npy")
    assert features.dtype == np.float32
    assert np.array_equal(features, regions.features)
    info = np.load(tmp_path / "new" / "folder" / "a_info.npy", allow_pickle=True).item()
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
    MMFWriter(tmp_path).write("a", regions)
    back = read_mmf(tmp_path, "a")
    for field in dataclasses.fields(regions):
        assert np.array_equal(getattr(back, field.name), getattr(regions, field.name))


def test_done_only_when_both_files_are_there(tmp_path, regions):
    writer = MMFWriter(tmp_path)
    writer.write("a", regions)
    assert writer.is_done("a")
    for missing in ("a.npy", "a_info.npy"):
        content = (tmp_path / missing).read_bytes()
        (tmp_path / missing).unlink()
        assert not writer.is_done("a")
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
    assert not writer.is_done("b")


def test_folder_that_cant_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"output\.dir="):
        MMFWriter(tmp_path / "file")
    with pytest.raises(OutputError, match=r"output\.dir="):
        MMFWriter(tmp_path / "file" / "below")


def test_folder_that_vanishes(tmp_path, regions):
    writer = MMFWriter(tmp_path / "out")
    (tmp_path / "out").rmdir()
    with pytest.raises(OutputError, match="No such file"):
        writer.write("a", regions)


def test_info_names_no_module_that_old_numpy_lacks(regions):
    content = pickled_npy({"bbox": regions.bbox, "text": "numpy._core.multiarray is only text"})
    assert b"cnumpy._core" not in content
    assert b"numpy.core.multiarray" in content
    assert b"numpy._core.multiarray is only text" in content


def test_info_is_what_numpy_itself_would_give_back(tmp_path, regions):
    path = tmp_path / "x.npy"
    path.write_bytes(pickled_npy({"bbox": regions.bbox, "n": 3}))
    value = np.load(path, allow_pickle=True)
    assert value.shape == ()
    assert np.array_equal(value.item()["bbox"], regions.bbox)
    assert value.item()["n"] == 3
