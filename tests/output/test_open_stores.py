"""What a path means, above all where a run was cut into shards."""

import errno
import os
import shutil

import pytest
import support
from sharded import PARTS, check, files_open, note, place, together, write_shards
from store_files import ONE_FILE, write

from vmb_d2.errors import StoreError
from vmb_d2.output.open_stores import open_reader
from vmb_d2.stores import FORMATS


@pytest.fixture(params=ONE_FILE)
def name(request):
    """Of each format with one file."""
    return request.param


def test_each_feature_has_a_folder(tmp_path, out, name, monkeypatch):
    other = [{n: support.some_regions(9 + i) for n in part} for i, part in enumerate(PARTS)]
    write_shards(out, name, PARTS, "fc6")
    write_shards(out, name, other, "fc7")
    for index in (1, 2):
        note(out, index, 3, stores=[(name, "fc6"), (name, "fc7")])
    (out / "shards" / "0-of-3" / "manifest.json").write_text("{half")
    (tmp_path / "link").symlink_to(out / "fc7")
    with open_reader(out / "fc6") as a, open_reader(tmp_path / "link", name) as b:
        check(a, name, together(PARTS))
        check(b, name, together(other))
    monkeypatch.chdir(out / "fc6")
    for path in (".", "../fc6", "../../out/fc6/"):
        with open_reader(path) as reader:
            check(reader, name, together(PARTS))
    with open_reader(out / "shards" / "1-of-3" / "fc7") as reader:
        assert sorted(reader.names()) == sorted(other[1])
    with pytest.raises(StoreError, match=r"folder of its own: take .*/out/fc6 or .*/out/fc7"):
        open_reader(out, name)


def test_what_was_merged_goes_first(out, name):
    merged = {"d": support.some_regions(90), "z": support.some_regions(91)}
    write_shards(out, name, PARTS)
    store = write(out / FORMATS[name].place, name, merged)
    expected = together([merged, *PARTS])
    with open_reader(out) as reader:
        assert reader.merged == store
        check(reader, name, expected)
        assert set(list(reader.names())[:2]) == set(merged)
    with open_reader(store) as reader:  # by itself
        assert sorted(reader.names()) == ["d", "z"]
    write(out / "fc6" / FORMATS[name].place, name, merged)
    write_shards(out, name, PARTS, "fc6")
    with open_reader(out / "fc6") as reader:
        check(reader, name, expected)


def test_several_formats_in_one_folder(out):
    write_shards(out, "hdf5", PARTS)
    write_shards(out, "lmdb", PARTS)
    write(out, "npz", {"of all shards": support.some_regions()})
    with pytest.raises(
        StoreError, match=r"out: holds several stores \(npz, lmdb, hdf5\): name one"
    ):
        open_reader(out)
    for name in ("lmdb", "hdf5"):
        with open_reader(out, name) as reader:
            assert len(reader) == 6
    with open_reader(out, "npz") as reader:
        assert list(reader.names()) == ["of all shards"]
    with pytest.raises(StoreError, match="no store butd_tsv"):
        open_reader(out, "butd_tsv")
    write(out / "fc6", "lmdb", PARTS[0])
    write(out / "fc6" / "features.lmdb", "lmdb", PARTS[1])
    with pytest.raises(StoreError, match=r"fc6: holds several stores \(lmdb\): name one"):
        open_reader(out / "fc6")


def test_a_damaged_store_is_named(out, name):
    write_shards(out, name, PARTS)
    damaged = place(out, 1, 3, name)
    file = support.data_file(name, damaged)
    before = files_open()
    for content in (b"text\n", file.read_bytes()[: -5000 if "lmdb" in damaged.name else -100]):
        file.write_bytes(content)
        with pytest.raises(StoreError, match=rf"1-of-3/{damaged.name}") as caught:
            open_reader(out)
        assert "\n" not in str(caught.value)
    assert files_open() == before


@pytest.mark.parametrize("feature", [None, "fc6"])
def test_a_store_that_is_gone_is_named(out, name, feature):
    write_shards(out, name, PARTS, feature or ".")
    path = out / (feature or ".")
    gone = place(out, 1, 3, name, feature or ".")
    file = support.data_file(name, gone)
    shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    with open_reader(path) as reader:  # nothing says that there was one
        assert sorted(reader.names()) == ["a", "f", "sub/b"]
    stores = [(name, feature)] if feature is None else [(name, feature), (name, "fc7")]
    note(out, 1, 3, "running", done=0, stores=stores)
    with open_reader(path) as reader:
        assert len(reader) == 3
    note(out, 1, 3, done=3, stores=stores)
    with pytest.raises(StoreError, match=rf"{gone}: is missing or empty, but images were"):
        open_reader(path)
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"")
    with pytest.raises(StoreError, match=rf"{gone}: is missing or empty"):
        open_reader(path, name)
    note(out, 1, 3, done=3, stores=[("mmf", feature)])  # the last run wrote another format
    with open_reader(path) as reader:
        assert len(reader) == 3


def test_shards_stores_that_were_merged_may_be_deleted(tmp_path, out, name):
    """As long as their records stay, nothing else tells that there were some."""
    write_shards(out, name, PARTS)
    for index in range(3):
        note(out, index, 3, done=2, stores=[(name, None)])
    other = "lmdb" if name == "hdf5" else "hdf5"
    for to in (other, name):
        write(out / FORMATS[to].place, to, together(PARTS[:2]))
    for index in (0, 1, 2):
        with open_reader(out, name) as reader:
            assert sorted(reader.names()) == ["a", "d", "e", "f", "sub/b", "sub/c"]
        gone = place(out, index, 3, name)
        os.rename(gone, gone.with_name("elsewhere"))
    os.rename(out / FORMATS[name].place, out / "elsewhere")
    with open_reader(out) as reader:
        assert type(reader) is FORMATS[other].reader
    with pytest.raises(StoreError, match=f"no store {name}"):
        open_reader(out, name)


def test_a_shard_that_has_begun_holds_nothing_yet(out, name):
    """Whether it is running, or was killed, or has no image."""
    write_shards(out, name, [PARTS[0], {}, PARTS[2]])
    for folder in ("3-of-8", "4-of-8"):
        (out / "shards" / folder).mkdir()
    writer = FORMATS[name].writer(place(out, 3, 8, name))
    try:
        with open_reader(out) as reader:
            assert sorted(reader.names()) == ["a", "f", "sub/b"]
    finally:
        writer.abandon()


def test_shards_that_cant_be_listed(out):
    write(out / "features.h5", "hdf5", PARTS[0])
    (out / "fc6").mkdir()
    write(out / "fc6" / "features.h5", "hdf5", PARTS[0])
    (out / "shards").symlink_to(out / "shards")
    for path in (out, out / "fc6"):
        with pytest.raises(StoreError, match=f"out/shards: {os.strerror(errno.ELOOP)}"):
            open_reader(path)
    with open_reader(out / "features.h5") as reader:
        assert len(reader) == 2
