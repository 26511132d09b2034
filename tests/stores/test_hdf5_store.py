"""The HDF5 file: what h5py makes of it, files that others wrote, and how it is written."""

import h5py
import numpy as np
import pytest
import store_files
import support

from vmb_d2.errors import StoreError
from vmb_d2.stores.hdf5 import HDF5Reader, HDF5Writer
from vmb_d2.stores.journaled_file import encode_journal, journal_path


@pytest.fixture
def regions():
    return support.some_regions()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "features.h5"


def write(path, images):
    store_files.write(path, "hdf5", images)


def test_a_file_of_another_program(path, regions):
    """With only the features, an older version of HDF5's structures, and other things in it."""
    with h5py.File(path, "w") as file:
        file["val/a/features"] = regions.features
        file.create_dataset("b/features", data=regions.features, compression="gzip")
        file["b/obj_id"] = regions.objects.astype(np.int32)
        file["b/img_w"] = 640.0
        file["features"] = regions.features  # of no group
        file["c/other"] = np.arange(3)
        file["table"] = np.arange(3)
        file["soft"] = h5py.SoftLink("/b")
        file["nowhere"] = h5py.SoftLink("/missing")
        file["outside"] = h5py.ExternalLink("other.h5", "/a")
    with HDF5Reader(path) as reader:
        assert list(reader.names()) == ["b", "val/a"]
        assert len(reader) == 2
        found = reader.read("val/a")
        assert np.array_equal(found.features, regions.features)
        assert (found.bbox, found.image_width, found.num_boxes) == (None, None, 5)
        found = reader.read("b")
        assert np.array_equal(found.objects, regions.objects)
        assert found.image_width == 640
        assert "c" not in reader
        with pytest.raises(StoreError, match="has no image 'c'"):
            reader.read("c")
    write(path, {"new": regions})  # added to
    with HDF5Reader(path) as reader:
        assert list(reader.names()) == ["b", "new", "val/a"]
        support.assert_same_regions(reader.read("new"), regions, but=["cls_prob"])
    with h5py.File(path) as file:
        assert file["soft/img_w"][()] == 640


def test_groups_that_are_no_images(path, regions):
    with h5py.File(path, "w") as file:
        file["a/features"] = np.array([b"x"])
        file["b/features"] = regions.features
        file["b/boxes"] = np.zeros((4, 4))
        file["c/features/below"] = 3
    with HDF5Reader(path) as reader:
        for name, reason in (("a", "no array of numbers"), ("b", "boxes|bbox"), ("c", "")):
            with pytest.raises(StoreError, match=rf"features\.h5: '{name}': .*{reason}"):
                reader.read(name)


def test_what_is_present_among_what_another_program_made(path, regions):
    write(path, {"a": regions, "sub/b": regions})
    with h5py.File(path, "r+") as file:
        file["dataset"] = 3
        file["soft"] = h5py.SoftLink("/a")
        file["dangling"] = h5py.SoftLink("/none")
        file["elsewhere"] = h5py.ExternalLink("none.h5", "/a")
        file["empty/features"] = h5py.SoftLink("/none")
        file["linked/features"] = h5py.SoftLink("/a/features")
        file["below/features/deep"] = 3
        file["softly"] = h5py.SoftLink("/sub")
    there = {"a", "sub/b", "soft", "linked", "below", "softly/b"}
    others = [
        "sub",
        "dataset",
        "dangling",
        "dataset/x",
        "dangling/x",
        "\udcff",
        "none",
    ]
    writer = HDF5Writer(path)
    assert writer.present([*others, *there]) == there
    assert all(name in writer for name in there)
    writer.abandon()


@pytest.mark.parametrize("committed", [False, True])
def test_a_reader_takes_a_journal_into_account(path, regions, tmp_path, committed):
    """Whether the death came before the commit or after it."""
    write(path, {"a": regions})
    old = path.read_bytes()
    write(path, {"b": regions})
    new = path.read_bytes()
    assert len(new) > len(old)
    state = old + new[len(old) :]  # nothing written over yet
    path.write_bytes(state)
    changes = (len(new), [(0, new[: len(old)])]) if committed else (len(old), [])
    journal_path(path).write_bytes(encode_journal(*changes))
    with HDF5Reader(path) as reader:
        assert list(reader.names()) == ["a", "b"][: 1 + committed]
        for name in reader.names():
            support.assert_same_regions(reader.read(name), regions, but=["cls_prob"])
    assert path.read_bytes() == state
    HDF5Writer(path).close()
    assert path.read_bytes() == (new if committed else old)
    assert [file.name for file in tmp_path.iterdir()] == ["features.h5"]


def test_a_death_in_the_first_flush_leaves_an_empty_store(path, regions):
    write(path, {"a": regions})
    whole = path.read_bytes()
    for size in (0, 100, len(whole)):
        path.write_bytes(whole[:size])
        journal_path(path).write_bytes(encode_journal(0, []))
        with HDF5Reader(path) as reader:
            assert (list(reader.names()), len(reader), "a" in reader) == ([], 0, False)
        assert path.read_bytes() == whole[:size]
        write(path, {"b": regions})
        with HDF5Reader(path) as reader:
            assert list(reader.names()) == ["b"]


def test_an_open_store_is_a_whole_file_for_h5py(path, regions):
    """As it is after a kill; and whole for HDF5 1.8 too."""
    writer = HDF5Writer(path)
    writer.write("a", regions)
    writer.flush()
    writer.write("b", regions)
    copy = path.with_name("copy.h5")
    copy.write_bytes(path.read_bytes())
    assert copy.read_bytes()[8] == 2  # the version of the superblock
    with h5py.File(copy, "r+") as file:
        assert list(file) == ["a"]
    writer.abandon()


def test_an_end_without_closing(path):
    """The interpreter ends without a crash, even if something has held on to them until then."""
    code = (
        "import builtins, numpy\n"
        "from vmb_d2.structures.regions import RegionFeatures\n"
        "from vmb_d2.stores.hdf5 import HDF5Reader, HDF5Writer\n"
        "regions = RegionFeatures(numpy.ones((5, 16), 'f4'), None, 5, *[None] * 4)\n"
        f"writer = HDF5Writer({str(path)!r})\n"
        "writer.write('a', regions)\n"
        "writer.flush()\n"
        "writer.write('b', regions)\n"
        "builtins.kept = writer, HDF5Reader(writer.path)\n"
        "raise SystemExit(7)\n"
    )
    result = support.run_tool("-c", code, PYTHONPATH=support.TEST_PATH)
    assert (result.returncode, result.stderr) == (7, "")
    with HDF5Reader(path) as reader:
        assert list(reader.names()) == ["a"]
