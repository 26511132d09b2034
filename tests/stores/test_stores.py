"""What all formats have in common: content, names, going on, and telling them apart."""

import dataclasses

import numpy as np
import pytest
import support
from store_files import KEEPS, TSVS, check, full_regions, numbered, write

from vmb_d2.errors import ConfigError, StoreError
from vmb_d2.output.open_stores import open_reader
from vmb_d2.stores import FORMATS, format_named
from vmb_d2.stores.fields import FIELDS
from vmb_d2.structures.regions import RegionFeatures

_UNKNOWN = ("bbox", "objects", "cls_prob", "image_width", "image_height", "objects_conf")
CONTENTS = {
    "every field": {
        "a": full_regions(1),
        "b/c/d": full_regions(2, count=1),
        "b/ü 日本": full_regions(3),
    },
    "an extraction": {"a": support.some_regions(1), "b": support.some_regions(2, num_boxes=0)},
    "features only": {"a": support.some_regions(num_boxes=5, **dict.fromkeys(_UNKNOWN))},
    "classes without confidences": {
        "a": support.some_regions(cls_prob=None, objects=np.array([0, 3, 0, 1, 7]))
    },
    "features of any layout": {
        "a": support.some_regions(
            features=np.asfortranarray(np.arange(80, dtype=np.float32).reshape(5, 16))[::-1]
        )
    },
}


@pytest.mark.parametrize("content", CONTENTS)
def test_what_is_written_comes_back(format_, path, content):
    write(path, format_.name, CONTENTS[content])
    check(format_, path, CONTENTS[content])


def test_what_the_formats_say_that_they_keep():
    """What they do keep is held against the same table by the tests around this one."""
    assert {name: format_.writer.keeps for name, format_ in FORMATS.items()} == KEEPS
    fields = {field.name for field in dataclasses.fields(RegionFeatures)}
    assert {*FIELDS, "features", "further", "extra", "choice_is_finite"} == fields


def test_no_regions(format_, path):
    images = {"a": support.some_regions(count=0), "b": support.some_regions()}
    write(path, format_.name, images)
    check(format_, path, images)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_dtype_of_the_features(format_, path, dtype):
    regions = support.some_regions()
    write(path, format_.name, {"a": regions}, dtype)
    with format_.reader(path) as reader:
        features = reader.read("a").features
    expected = format_.writer.dtype_for(dtype)
    assert features.dtype == expected
    assert np.array_equal(features, regions.features.astype(expected))
    assert (format_.writer.only_dtype is None) == (format_.name not in (*TSVS, "uniter"))


def test_names(format_, path):
    names = ["a", "a b", "a.b", "-x", "#%41", "ü", "日本", "sub/x", "sub/below/y", "sub", "keys"]
    names += ["x_info", "y", "y_info", 'q"q', "t\tt", "n\nn", "r\rr", "./z", "bytes\udcff"]
    names += ["l" * 200, "l" * 250, "/".join(["folder"] * 90)]
    bad = dict(format_.writer.problems(iter(names)))
    assert set(bad) < set(names)
    images = {n: support.some_regions(i) for i, n in enumerate(names) if n not in bad}
    images.pop("./z", None)  # a path of another form, which folders don't give back
    write(path, format_.name, images)
    check(format_, path, images)
    writer = format_.writer(path)
    assert all(name in writer for name in images)
    others = ["none", "sub/none", "none/x", "sub/below", "a/none", "x_info_info"]
    assert writer.present([*others, *images]) == set(images)
    assert writer.present(iter(others)) == set()
    writer.close()


LONG = "l" * 250
TSV_NAMES = {
    **dict.fromkeys(["a\tb", "a\nb", "a\rb", 'a"b', "a\0b"], "a tab, line break or quotation mark"),
    "\udcff": "not UTF-8",
}
OTHERS_PLACES = {"openvqa/a": "is the folder of", "uniter/b/c": "is the folder of"}
LMDB_NAMES = {"keys": "the list of images", "l" * 512: "longer", "ü" * 256: "longer"}
# Of each format: names that it can't keep, with the reason; and others that it can.
NAMES = {
    "mmf": ({"x_info": "a part of another image", LONG: "longer"}, ["x", "sub/" + "l" * 230]),
    "npz": (
        {**OTHERS_PLACES, LONG: "longer"},
        ["sub/openvqa/d", "openvqa", "uniter.e/f", "oscar/g"],
    ),
    "openvqa": (OTHERS_PLACES, ["sub/openvqa/d", "openvqa"]),
    "uniter": (OTHERS_PLACES, ["oscar/g"]),
    "lmdb": (LMDB_NAMES, ["a", "sub/keys", "l" * 511]),
    "vilbert": (LMDB_NAMES, ["a", "sub/keys", "l" * 511]),
    "lxmert_tsv": (TSV_NAMES, ["a", "a b", " a", "ü", "sub/'a'"]),
    "butd_tsv": (TSV_NAMES, ["a", "a b", " a", "ü", "sub/'a'"]),
    "oscar": (
        {**TSV_NAMES, **dict.fromkeys([" b", "b ", "\u3000b"], "blanks at an end")},
        ["a", "a b", "ü", "sub/'a'"],
    ),
    "hdf5": (
        {
            "a": "a/b, an image too, is below it",
            "a/b": "a/b/c, an image too, is below it",
            "./d": "a part of it is a dot",
            "e/./f": "a part of it is a dot",
            "\udcff": "not UTF-8",
        },
        ["a/b/c", "ab", "b/c", ".g", "h/..i"],
    ),
}


def test_names_that_cant_be_kept(format_):
    bad, good = NAMES[format_.name]
    found = dict(format_.writer.problems(iter([*good, *bad])))
    assert found.keys() == bad.keys()
    assert all(reason in found[name] for name, reason in bad.items())


def test_going_on(format_, folder, path):
    images = numbered(range(7))
    first = dict(list(images.items())[:3])
    write(path, format_.name, first)
    writer = format_.writer(path)
    assert [name for name in images if name in writer] == list(first)
    assert writer.present(images) == set(first)
    for name in list(images)[3:]:
        assert name not in writer
        writer.write(name, images[name])
        assert name in writer
        assert writer.present([name, "none"]) == {name}
    writer.flush()
    writer.close()
    check(format_, path, images)
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    format_.writer(path).close()  # nothing new
    changed = [file.name for file, content in before.items() if file.read_bytes() != content]
    assert changed == []
    check(format_, path, images)


def test_abandoned_is_what_was_not_flushed(format_, path):
    images = numbered(range(5))
    writer = format_.writer(path)
    for name in list(images)[:3]:
        writer.write(name, images[name])
    writer.flush()
    if format_.one_file:  # a file of its own is there at once
        for name in list(images)[3:]:
            writer.write(name, images[name])
    writer.abandon()
    there = dict(list(images.items())[:3])
    check(format_, path, there)
    writer = format_.writer(path)
    assert [name for name in images if name in writer] == list(there)
    writer.abandon()
    write(path, format_.name, dict(list(images.items())[3:]))
    check(format_, path, images)


def test_an_image_that_is_not_there(format_, path):
    write(path, format_.name, {"a": support.some_regions()})
    with format_.reader(path) as reader:
        for name in ("b", "a/b", "keys", "", "\udcff"):
            assert name not in reader
            with pytest.raises(StoreError) as caught:
                reader.read(name)
            assert str(path) in str(caught.value)
            assert "\n" not in str(caught.value)


def test_readers_write_nothing(format_, folder, path):
    write(path, format_.name, numbered(range(3)))
    (folder / "lxmert.tsv.index").unlink(missing_ok=True)
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    check(format_, path, numbered(range(3)))
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before


def test_stores_that_lie_in_one_folder(tmp_path):
    for format_ in FORMATS.values():
        write(tmp_path / format_.place, format_.name, {"sub/a": support.some_regions()})
    with pytest.raises(StoreError, match=r"several stores \(mmf, npz, lmdb"):
        open_reader(tmp_path)
    for name, format_ in FORMATS.items():
        reader = open_reader(tmp_path, name)
        assert type(reader) is format_.reader
        assert list(reader.names()) == ["sub/a"]
        reader.close()


def test_a_store_under_any_name(format_, tmp_path):
    path = tmp_path / "any.name"
    write(path, format_.name, {"sub/a": support.some_regions(count=100, dimension=4000)})
    with open_reader(path) as reader:
        assert type(reader) is format_.reader
        assert list(reader.names()) == ["sub/a"]


def test_what_is_no_store(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a_info.npy").write_bytes(b"")
    (tmp_path / "sub" / ".a.npy").write_bytes(b"")
    (tmp_path / "features.h5").write_bytes(b"text")
    (tmp_path / "lxmert.tsv").write_bytes(b"a\tb\n")
    (tmp_path / "butd.tsv").write_bytes(b"")
    (tmp_path / "features.lmdb").mkdir()
    (tmp_path / "features.lmdb" / "data.mdb").write_bytes(b"text")
    for place in (tmp_path, tmp_path / "features.h5", tmp_path / "features.lmdb"):
        with pytest.raises(StoreError, match="no store of the formats mmf, npz"):
            open_reader(place)
    with pytest.raises(StoreError, match="No such file or directory"):
        open_reader(tmp_path / "missing")
    with pytest.raises(ConfigError, match="'csv' is unknown; valid are mmf, npz, lmdb"):
        format_named("csv")


def test_an_empty_store(format_, path):
    format_.writer(path).close()
    format_.writer(path).close()
    check(format_, path, {})
    write(path, format_.name, {"a": support.some_regions()})
    check(format_, path, {"a": support.some_regions()})


def test_size_on_the_disk(format_, folder, path):
    regions = support.some_regions(count=36, dimension=2048, classes=1600)
    format_.writer(path).close()
    before = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    write(path, format_.name, {f"image{i}": regions for i in range(12)})
    after = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    itemsize = format_.writer.dtype_for("float32").itemsize
    expected = format_.writer.bytes_per_image(36, 2048, 1600, itemsize)
    assert 0.9 < (after - before) / 12 / expected < 1.05
