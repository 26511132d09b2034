"""MMF's LMDB: what MMF makes of it, LMDBs that others wrote, and how it grows."""

import os
import pickle

import lmdb
import numpy as np
import pytest
import store_files
import support
from store_files import foreign_lmdb as foreign

from vmb_d2.errors import StoreError
from vmb_d2.stores.lmdb_store import LMDBReader, LMDBWriter


@pytest.fixture
def regions():
    return support.some_regions()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "features.lmdb"


def write(path, images):
    store_files.write(path, "lmdb", images)


def as_mmf_reads(path):
    """MMF's LMDBFeatureReader: the keys and their items."""
    environment = lmdb.open(
        str(path),
        subdir=os.path.isdir(path),
        readonly=True,
        lock=False,
        readahead=False,
        meminit=False,
    )
    with environment, environment.begin(write=False, buffers=True) as transaction:
        keys = pickle.loads(transaction.get(b"keys"))
        return {key: pickle.loads(transaction.get(key)) for key in keys}


def test_the_keys_are_written_at_the_end(path, regions):
    writer = LMDBWriter(path)
    writer.write("b", regions)
    writer.flush()
    with LMDBReader(path) as reader:
        assert list(reader.names()) == ["b"]
    writer.abandon()
    with pytest.raises(TypeError):
        as_mmf_reads(path)
    write(path, {"c": regions})
    assert list(as_mmf_reads(path)) == [b"b", b"c"]
    writer = LMDBWriter(path)
    writer.write("a", regions)
    writer.flush()
    writer.abandon()
    assert list(as_mmf_reads(path)) == [b"b", b"c"]  # those before the death
    with LMDBReader(path) as reader:
        assert list(reader.names()) == ["a", "b", "c"]
        assert len(reader) == 3
    writer = LMDBWriter(path)
    assert writer.present(["keys"]) == set()
    writer.close()
    assert list(as_mmf_reads(path)) == [b"a", b"b", b"c"]


def test_it_grows(path, monkeypatch):
    monkeypatch.setattr(LMDBWriter, "map_size", 1 << 14)
    images = {f"image{i}": support.some_regions(i, dimension=500) for i in range(40)}
    writer = LMDBWriter(path)
    for i, (name, regions) in enumerate(images.items()):
        writer.write(name, regions)
        if i % 13 == 0:
            writer.flush()
    writer.close()
    assert (path / "data.mdb").stat().st_size > 20 << 14
    writer = LMDBWriter(path)  # smaller than what is there
    assert all(name in writer for name in images)
    writer.write("more", support.some_regions(dimension=5000))
    writer.close()
    assert len(as_mmf_reads(path)) == 41


@pytest.mark.parametrize("subdir", [True, False])
@pytest.mark.parametrize("keys", [None, ["a", "b"], ["b"]])
def test_an_lmdb_of_another_program(path, regions, subdir, keys):
    values = {"a": {"features": regions.features}, "b": {"features": regions.features, "x": 1}}
    foreign(path, values | ({} if keys is None else {"keys": keys}), subdir)
    with LMDBReader(path) as reader:
        assert list(reader.names()) == ["a", "b"]
        assert len(reader) == 2
        assert "keys" not in reader
        found = reader.read("a")
        assert np.array_equal(found.features, regions.features)
        assert (found.bbox, found.num_boxes, found.extra) == (None, 5, {})
        assert reader.read("b").extra == {"x": 1}
    with LMDBReader(path) as reader, pytest.raises(StoreError, match="has no image 'keys'"):
        reader.read("keys")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"x", "no whole pickle"),
        ([1, 2], "no features"),
        ({"bbox": np.zeros((5, 4))}, "no features"),
        ({"features": "AAAA"}, "no array of numbers"),
    ],
)
def test_values_that_are_no_images(path, value, reason):
    foreign(path, {"a": value})
    with LMDBReader(path) as reader, pytest.raises(StoreError, match=f"data.mdb: 'a': .*{reason}"):
        reader.read("a")


def test_an_lmdb_read_twice_at_once(path, regions):
    """The library opens a file but once in a process."""
    write(path, {"a": regions})
    first, second = LMDBReader(path), LMDBReader(path / "data.mdb")
    first.close()
    first.close()
    support.assert_same_regions(second.read("a"), regions)
    second.close()
    LMDBWriter(path).close()


def taken_by_mmf(path, name):
    """The name of the image that MMF's reader takes when it is asked for ``name``."""
    with lmdb.open(str(path), readonly=True, lock=False) as environment, environment.begin() as t:
        keys = pickle.loads(t.get(b"keys"))
        split = os.path.relpath(f"/data/{name}.npy", "/data").split(".npy")[0]
        try:
            key = keys[keys.index(str(int(split.split("_")[-1])).encode())]
        except ValueError:
            key = keys[keys.index(split.encode())]
        return pickle.loads(t.get(key))["feature_path"]


COCO_9 = "COCO_train2014_000000000009"


@pytest.mark.parametrize(
    ("names", "wrong"),
    [
        (
            ["9", COCO_9, "sub/x_9", "009", "a_+9"],
            dict.fromkeys([COCO_9, "sub/x_9", "009", "a_+9"], "9"),
        ),
        ([COCO_9, "x_9", "000000000009", "sub/9", "8", "x_9a", "9_x", "x_8.5"], {}),
        (["-3", "x_-3", "x_3", "0", "x_"], {"x_-3": "-3"}),
    ],
)
def test_names_that_mmf_takes_for_others(path, regions, names, wrong):
    write(path, dict.fromkeys(names, regions))
    taken = {name: taken_by_mmf(path, name) for name in names}
    assert {name: other for name, other in taken.items() if other != name} == wrong
    lines = list(LMDBWriter.mistaken(iter(names)))
    assert len(lines) == bool(wrong)
    for line in lines:
        assert line.startswith(f"{len(wrong)} names for which MMF's reader takes another image")
        assert line.endswith("; ".join(f"{wrong[name]} for {name}" for name in sorted(wrong)))


def test_a_cut_file_is_an_error(path, regions):
    write(path, {"a": support.some_regions(dimension=3000)})
    file = path / "data.mdb"
    whole = file.read_bytes()
    for size in (1, 100, 4096, 8192, 3 * 4096, len(whole) // 2):
        file.write_bytes(whole[:size])
        with pytest.raises(StoreError, match=r"ends too early|can't be read") as caught:
            LMDBReader(path).read("a")
        assert "\n" not in str(caught.value)
    file.write_bytes(b"")
    with pytest.raises(StoreError, match="can't be read"):
        LMDBReader(path)
    write(path, {"b": regions})  # as after a death while it was made
    assert list(as_mmf_reads(path)) == [b"b"]
