"""The HDF5 file: what h5py makes of it, files that others wrote, and how it is written."""

import subprocess
import sys

import h5py
import numpy as np
import pytest
import support

from vmb_d2.errors import OutputError, StoreError
from vmb_d2.stores import hdf5, journaled_file
from vmb_d2.stores import journaled_file as journal
from vmb_d2.stores.hdf5 import HDF5Reader, HDF5Writer
from vmb_d2.stores.journaled_file import JournaledFile


@pytest.fixture
def regions():
    return support.some_regions()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "features.h5"


def write(path, images):
    writer = HDF5Writer(path)
    for name, regions in images.items():
        writer.write(name, regions)
    writer.close()


def test_what_h5py_reads(path, regions):
    full = support.some_regions(
        1,
        class_logits=np.ones((5, 10), np.float32),
        attrs_id=np.arange(5),
        attrs_conf=np.ones(5, np.float32),
    )
    write(path, {"sub/a": regions, "b": full})
    with h5py.File(path) as file:
        assert sorted(file) == ["b", "sub"]
        group = file["sub/a"]
        assert {key: (d.dtype.name, d.shape) for key, d in group.items()} == {
            "features": ("float32", (5, 16)),
            "boxes": ("float32", (5, 4)),
            "obj_id": ("int64", (5,)),
            "obj_conf": ("float32", (5,)),
            "attr_id": ("int64", (5,)),
            "attr_conf": ("float32", (5,)),
            "img_w": ("int64", ()),
            "img_h": ("int64", ()),
        }
        assert not group["attr_id"][()].any() and not group["attr_conf"][()].any()
        assert group.attrs["num_boxes"] == 4
        assert np.array_equal(group["features"], regions.features)
        assert np.array_equal(group["boxes"], regions.bbox)
        assert np.array_equal(group["obj_id"], regions.objects)
        assert np.array_equal(group["obj_conf"], regions.objects_conf)
        assert (group["img_w"][()], group["img_h"][()]) == (640, 427)
        assert file["b/logits"].dtype == np.float32
        assert file["b/attr_id"][()].tolist() == [0, 1, 2, 3, 4]
        assert file["b/attr_conf"][()].tolist() == [1] * 5


def test_an_image_is_one_chunk(path, regions):
    write(path, {"a": regions, "none": support.some_regions(count=0)})
    with h5py.File(path) as file:
        assert file["a/features"].chunks == (5, 16)
        assert file["none/features"].chunks is None
        assert file["none/features"].shape == (0, 16)


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
        file["val/circle"] = file["val"]
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


@pytest.mark.parametrize("names", [("attr_id", "attr_conf"), ("attrs_id", "attrs_conf")])
@pytest.mark.parametrize("known", [True, False])
def test_attributes_under_vl_t5s_names_and_under_those_before(path, regions, names, known):
    write(path, {"a": regions})
    with h5py.File(path, "r+") as file:
        del file["a/attr_id"], file["a/attr_conf"]
        for name, dtype in zip(names, (np.int64, np.float32), strict=True):
            file[f"a/{name}"] = np.arange(5, dtype=dtype) * known
    with HDF5Reader(path) as reader:
        found = reader.read("a")
    if known:
        assert found.attrs_id.tolist() == found.attrs_conf.tolist() == [0, 1, 2, 3, 4]
    else:
        assert found.attrs_id is None and found.attrs_conf is None


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


def test_names_that_cant_be_kept():
    names = ["a", "a/b", "a/b/c", "ab", "b/c", "./d", "e/./f", "\udcff", ".g", "h/..i"]
    assert dict(HDF5Writer.problems(names)) == {
        "a/b": "is below a, which is an image too",
        "a/b/c": "is below a, which is an image too",
        "./d": "a part of it is a dot",
        "e/./f": "a part of it is a dot",
        "\udcff": "not UTF-8",
    }


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
    names = ["a", "sub", "sub/b", "dataset", "soft", "dangling", "elsewhere", "empty", "linked"]
    names += ["below", "softly/b", "dataset/x", "dangling/x", "a/features", "\udcff", "none"]
    writer = HDF5Writer(path)
    expected = {name for name in names if name != "\udcff" and name in writer}
    assert {"a", "sub/b", "soft", "linked", "below", "softly/b"} <= expected
    assert expected.isdisjoint(["sub", "dataset", "dangling", "dataset/x", "dangling/x", "none"])
    assert writer.present(names) == expected
    writer.abandon()


def test_what_is_present_after_writes_and_flushes(path, regions):
    """What waits counts; a flush, a rewritten journal and a look in between change nothing."""
    names = ["a", "sub/b", "c", "sub/d"]
    writer = HDF5Writer(path)
    assert writer.present(names) == set()
    for count, name in enumerate(names, 1):
        writer.write(name, regions)
        assert writer.present(names) == set(names[:count])
        if count % 2 == 0:
            writer.flush()
            assert writer.present(names) == set(names[:count])
    writer.close()
    writer = HDF5Writer(path)
    assert writer.present([*names, "e", "sub", "none/f"]) == set(names)
    writer.write("e", regions)
    assert writer.present(["sub/d", "e", "f"]) == {"sub/d", "e"}
    writer.abandon()
    with HDF5Reader(path) as reader:
        assert set(reader.names()) == set(names)


def test_hdf5_itself_reads_what_is_looked_up(path, regions, monkeypatch):
    """Where nothing waits; through our file each read takes Python's time."""
    write(path, {f"a{i}": regions for i in range(50)})
    writer = HDF5Writer(path)
    read = JournaledFile.readinto
    through_ours = []
    monkeypatch.setattr(
        JournaledFile, "readinto", lambda self, into: through_ours.append(1) or read(self, into)
    )
    assert len(writer.present([f"a{i}" for i in range(60)])) == 50
    assert through_ours == []
    assert "a7" in writer
    assert through_ours
    writer.write("b", regions)
    writer.flush()
    through_ours.clear()
    assert len(writer.present(["b", "c", *(f"a{i}" for i in range(60))])) == 51
    assert through_ours == []
    writer.abandon()


def test_how_a_file_is_opened_to_look(path, regions):
    write(path, {"a": regions})
    with hdf5._opened_to_look(path) as h5:
        assert (h5.driver, h5.mode) == ("sec2", "r")
        assert h5.id.get_mdc_size()[0] == h5.id.get_mdc_config().max_size


def test_a_group_is_in_one_piece(path, regions):
    """So that one read finds it; but where a new block of the file began in between."""
    write(path, {f"a{i}": regions for i in range(100)})
    with h5py.File(path) as file:
        pieces = [h5py.h5o.get_info(file.id, key).hdr.nchunks for key in file.id]
    assert pieces.count(1) > 90


def writers_of_damaged(path, places, zeros):
    """A writer for each of some places where the file is overwritten, if it opens at all."""
    whole = path.read_bytes()
    for begin in range(0, len(whole), len(whole) // places):
        path.write_bytes(whole[:begin] + bytes(zeros) + whole[begin + zeros :])
        try:
            writer = HDF5Writer(path)
        except OutputError:
            continue
        yield writer
        writer.abandon()


def test_looking_up_in_a_damaged_file(path, regions):
    """It finds what a question for each finds; the file is damaged where one of them says so."""
    names = [f"a{i}" for i in range(40)]
    write(path, dict.fromkeys(names[:30], regions))
    outcomes = []
    for writer in writers_of_damaged(path, 150, 300):
        try:
            expected = {name for name in names[:30] if name in writer}
        except OutputError:
            expected = "damaged"
        try:
            found = writer.present(names)
        except OutputError as error:
            assert str(error).startswith(f"{path}: is damaged (")
            assert "\n" not in str(error)
            found = "damaged"
        assert found == expected
        outcomes.append(found)
    assert outcomes.count("damaged") > 10
    assert outcomes.count(set(names[:30])) > 10


def test_a_name_that_is_taken_is_one_line(path, regions):
    write(path, {"a": regions})
    writer = HDF5Writer(path)
    for name in ("a", "a/features"):
        with pytest.raises(OutputError, match=rf"features\.h5: '{name}'.* ") as caught:
            writer.write(name, regions)
        assert "\n" not in str(caught.value)
    writer.abandon()
    with HDF5Reader(path) as reader:
        assert list(reader.names()) == ["a"]


def test_damage_is_one_line_to_a_writer_too(path, regions):
    write(path, {f"a{i}": regions for i in range(30)})
    for writer in writers_of_damaged(path, 60, 900):
        try:
            assert all(f"a{i}" in writer for i in range(30)) in (True, False)
        except OutputError as error:
            assert "\n" not in str(error)


def journals(monkeypatch):
    """The journals that get written from now on."""
    written = []
    write_whole = journaled_file.write_whole

    def record(file, content):
        written.append(content)
        write_whole(file, content)

    monkeypatch.setattr(journaled_file, "write_whole", record)
    return written


def test_a_reader_takes_a_journal_into_account(path, regions, tmp_path, monkeypatch):
    """Whether the death came before the commit or after it."""
    write(path, {"a": regions})
    old = path.read_bytes()
    written = journals(monkeypatch)
    write(path, {"b": regions})
    new = path.read_bytes()
    before, after = written
    assert len(new) > len(old)
    appended = old + new[len(old) :]  # nothing written over yet
    for content, expected in ((before, ["a"]), (after, ["a", "b"])):
        path.write_bytes(appended)
        journal.journal_path(path).write_bytes(content)
        with HDF5Reader(path) as reader:
            assert list(reader.names()) == expected
            for name in expected:
                support.assert_same_regions(reader.read(name), regions, but=["cls_prob"])
        assert path.read_bytes() == appended
        HDF5Writer(path).close()
        assert path.read_bytes() == {"a": old, "b": new}[expected[-1]]
        assert [file.name for file in tmp_path.iterdir()] == ["features.h5"]


def test_a_death_in_the_first_flush_leaves_an_empty_store(path, regions, monkeypatch):
    written = journals(monkeypatch)
    write(path, {"a": regions})
    whole = path.read_bytes()
    for size in (0, 100, len(whole)):
        path.write_bytes(whole[:size])
        journal.journal_path(path).write_bytes(written[0])
        with HDF5Reader(path) as reader:
            assert (list(reader.names()), len(reader), "a" in reader) == ([], 0, False)
        assert path.read_bytes() == whole[:size]
        write(path, {"b": regions})
        with HDF5Reader(path) as reader:
            assert list(reader.names()) == ["b"]


def test_a_damaged_journal(path, regions):
    write(path, {"a": regions})
    journal.journal_path(path).write_bytes(b"x")
    with pytest.raises(StoreError, match=r"features\.h5\.journal: no whole journal"):
        HDF5Reader(path)
    with pytest.raises(OutputError, match=r"features\.h5\.journal: no whole journal"):
        HDF5Writer(path)


def test_a_flush_writes_over_little_however_many_images_there_are(path, regions, monkeypatch):
    writer = HDF5Writer(path)
    for i in range(1500):
        writer.write(f"image{i}", regions)
    writer.flush()
    written = journals(monkeypatch)
    for i in range(5):
        writer.write(f"another{i}", regions)
        writer.flush()
    writer.abandon()
    sizes = [len(content) for content in written]
    assert len(sizes) == 10
    assert max(sizes) < 40_000 < path.stat().st_size / 50


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


def test_an_end_without_closing(path, regions):
    """The interpreter ends without a crash, even if something has held on to them until then."""
    code = (
        "import sys; sys.path[:0] = ['tests/support', '.']; import support\n"
        "from vmb_d2.utils import disk\n"
        "from vmb_d2.stores.hdf5 import HDF5Reader, HDF5Writer\n"
        f"writer = HDF5Writer({str(path)!r})\n"
        "writer.write('a', support.some_regions())\n"
        "writer.flush()\n"
        "writer.write('b', support.some_regions())\n"
        "disk.kept = writer, HDF5Reader(writer.path)\n"
        "raise SystemExit(7)\n"
    )
    command = [sys.executable, "-c", code]
    result = subprocess.run(
        command, cwd=support.ROOT, capture_output=True, text=True, check=False, timeout=300
    )
    assert (result.returncode, result.stderr) == (7, "")
    with HDF5Reader(path) as reader:
        assert list(reader.names()) == ["a"]
