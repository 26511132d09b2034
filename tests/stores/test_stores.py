"""What all formats have in common: content, resuming, every kind of death, and every damage."""

import contextlib
import dataclasses
import functools
import itertools
import os
import random
import shutil

import deaths
import numpy as np
import pytest
import store_files
import support

from vmb_d2.errors import ConfigError, OutputError, StoreError
from vmb_d2.output.open_stores import find_stores, open_reader
from vmb_d2.stores import FORMATS, FeatureReader, format_named

TSVS = ("lxmert_tsv", "butd_tsv", "oscar")

# The fields that a format doesn't keep. Beyond these, the TSVs keep the features as float32 only,
# and the number of rows in place of num_boxes.
_CLASSES = ("objects", "objects_conf", "attrs_id", "attrs_conf")
NOT_KEPT = {
    "mmf": ("confidence",),
    "npz": ("confidence",),
    "lmdb": ("confidence",),
    "lxmert_tsv": ("confidence", "cls_prob", "class_logits", "extra"),
    "butd_tsv": ("confidence", "cls_prob", "class_logits", "extra", *_CLASSES),
    "hdf5": ("confidence", "cls_prob", "extra"),
    "vilbert": ("confidence", "cls_prob", "class_logits", "extra", *_CLASSES),
    "openvqa": ("confidence",),
    "oscar": ("confidence", "cls_prob", "class_logits", "attrs_id", "attrs_conf", "extra"),
}
LMDBS = ("lmdb", "vilbert")


# Those that keep all images in one file, which a folder's files are not.
one_file = pytest.mark.parametrize(
    "format_", [name for name in FORMATS if FORMATS[name].one_file], indirect=True
)


@pytest.fixture(params=FORMATS)
def format_(request):
    return FORMATS[request.param]


@pytest.fixture
def folder(tmp_path):
    """An output folder."""
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


@pytest.fixture
def path(folder, format_):
    """Where the store of the format lies in it."""
    return folder / format_.place


def everything(seed=0, count=5):
    """Regions with a value in each field."""
    rng = np.random.default_rng([seed, 1])
    return support.some_regions(
        seed,
        count,
        objects_conf=rng.random(count, dtype=np.float32),
        confidence=np.linspace(1, 0, count + 1, dtype=np.float32)[1:],
        class_logits=rng.random((count, 10), dtype=np.float32),
        attrs_id=rng.integers(0, 400, count),
        attrs_conf=rng.random(count, dtype=np.float32) + 0.1,
        extra={"split": "val", "weights": [1.5, 2]},
    )


def kept(format_, regions):
    """What of the regions a format gives back."""
    if format_.name == "uniter":
        return support.in_uniters_files(regions)
    lost = {f: {} if f == "extra" else None for f in NOT_KEPT[format_.name]}
    if format_.name in (*TSVS, "vilbert"):
        lost["num_boxes"] = len(regions)
    if format_.name in TSVS:
        lost["features"] = regions.features.astype(np.float32)
    return dataclasses.replace(regions, **lost)


def write(format_, path, images, dtype="float32"):
    store_files.write(format_.name, path, images, dtype)


def check(format_, path, images):
    """The store holds exactly these images."""
    with format_.reader(path) as reader:
        names = list(reader.names())
        assert sorted(names) == sorted(images)
        assert len(reader) == len(images)
        for name, regions in images.items():
            assert name in reader
            support.assert_same_regions(reader.read(name), kept(format_, regions))


def numbered(numbers):
    return {f"{i % 3}/image {i}": support.some_regions(i) for i in numbers}


_UNKNOWN = ("bbox", "objects", "cls_prob", "image_width", "image_height", "objects_conf")
CONTENTS = {
    "every field": {"a": everything(1), "b/c/d": everything(2, count=1), "b/ü 日本": everything(3)},
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
    write(format_, path, CONTENTS[content])
    check(format_, path, CONTENTS[content])


def test_no_regions(format_, path):
    regions = support.some_regions(count=0)
    write(format_, path, {"a": regions, "b": support.some_regions()})
    with format_.reader(path) as reader:
        found = reader.read("a")
    if format_.name in TSVS:  # nothing says of how many numbers no features are
        assert found.features.shape == (0, 0)
        found = dataclasses.replace(found, features=regions.features)
    support.assert_same_regions(found, kept(format_, regions))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_dtype_of_the_features(format_, path, dtype):
    regions = support.some_regions()
    write(format_, path, {"a": regions}, dtype)
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
    write(format_, path, images)
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
    "mmf": ({"x": "x_info.npy would", LONG: "longer"}, ["x_info", "y_info", "sub/" + "l" * 230]),
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
            "a/b": "is below a, which is an image too",
            "a/b/c": "is below a, which is an image too",
            "./d": "a part of it is a dot",
            "e/./f": "a part of it is a dot",
            "\udcff": "not UTF-8",
        },
        ["a", "ab", "b/c", ".g", "h/..i"],
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
    write(format_, path, first)
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
    write(format_, path, dict(list(images.items())[3:]))
    check(format_, path, images)


def test_an_empty_store(format_, path):
    format_.writer(path).close()
    format_.writer(path).close()
    check(format_, path, {})
    write(format_, path, {"a": support.some_regions()})
    check(format_, path, {"a": support.some_regions()})


@pytest.mark.slow
def test_killed_at_any_moment(format_, path):
    rng = random.Random(format_.name)
    flushed = set()

    def work(send):
        writer = format_.writer(path)
        waiting = []
        for i in itertools.count():
            ((name, regions),) = numbered([i]).items()
            if name not in writer:
                writer.write(name, regions)
                waiting.append(name)
            if len(waiting) == 3:
                writer.flush()
                send("\n".join(waiting))
                waiting = []

    for i in range(15):
        flushed.update(deaths.killed(work, rng.uniform(0, 0.2), after_first=i % 3 == 0))
        if flushed:
            with format_.reader(path) as reader:
                there = list(reader.names())
                assert flushed <= set(there)
                assert len(there) == len(set(there))
                for name in rng.sample(there, min(10, len(there))):
                    ((_, regions),) = numbered([int(name.split()[-1])]).items()
                    support.assert_same_regions(reader.read(name), kept(format_, regions))
    assert flushed
    images = numbered(range(max(int(name.split()[-1]) for name in there) + 5))
    writer = format_.writer(path)
    assert flushed <= {name for name in images if name in writer}
    for name, regions in images.items():
        if name not in writer:
            writer.write(name, regions)
    writer.close()
    check(format_, path, images)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in FORMATS if name not in LMDBS])
def test_machine_dies_at_every_step(tmp_path, monkeypatch, name):
    """LMDB's writing can't be watched from here; that it survives this is what it is made for."""
    format_ = FORMATS[name]
    rng = random.Random(0)
    folder = tmp_path / "out"
    path = folder / format_.place
    images = numbered(range(6))
    names = list(images)
    base = tmp_path / "base"
    base.mkdir()
    write(format_, base / format_.place, {n: images[n] for n in names[:2]})
    for below in ("0", "1", "2"):
        if not format_.one_file:
            (base / format_.place / below).mkdir(exist_ok=True)
    for fatal_step in itertools.count(1):
        for lost in (False, True):
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(base, folder)
            flushed, begun = set(names[:2]), set(names[:2])
            with monkeypatch.context() as patch:
                machine = deaths.Machine(folder, patch, fatal_step)
                with contextlib.suppress(deaths.PowerFailure):
                    writer = format_.writer(path)
                    try:
                        for n in names[2:5]:
                            begun.add(n)
                            writer.write(n, images[n])
                            if n != names[2]:
                                writer.flush()
                                flushed |= begun
                        writer.close()
                    finally:
                        writer.abandon()
            machine.leave(rng if lost else None)
            with format_.reader(path) as reader:
                there = set(reader.names())
            assert flushed <= there <= begun
            check(format_, path, {n: images[n] for n in there})
            writer = format_.writer(path)
            assert {n for n in names if n in writer} == there
            for n in names:
                if n not in writer:
                    writer.write(n, images[n])
            writer.close()
            check(format_, path, images)
        if not machine.dead:
            break
    assert fatal_step > 5


def big(numbers):
    """About 130 KB each."""
    return {f"image {i}": support.some_regions(i, count=32, dimension=1024) for i in numbers}


def write_until_full(format_, path, images):
    """Write with a flush each until it fails. Returns what was flushed."""
    flushed = {}
    writer = format_.writer(path)
    with pytest.raises(OutputError) as caught:
        for name, regions in images.items():
            writer.write(name, regions)
            writer.flush()
            flushed[name] = regions
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    writer.abandon()
    return flushed, str(caught.value)


def go_on(format_, path, images, there):
    writer = format_.writer(path)
    assert [name for name in images if name in writer] == list(there)
    for name, regions in images.items():
        if name not in writer:
            writer.write(name, regions)
    writer.close()
    check(format_, path, images)


def test_a_limit_of_the_file_size(format_, path):
    limit = 500_000 if format_.one_file else 50_000
    images = big(range(7))
    if not format_.one_file:
        images = {**numbered(range(3)), **images}
    with support.file_size_limit(limit):
        flushed, reason = write_until_full(format_, path, images)
    assert "File too large" in reason or (format_.name in LMDBS and "no space left" in reason)
    assert flushed
    check(format_, path, flushed)
    go_on(format_, path, images, flushed)


def test_a_full_disk(format_, tmp_path):
    (tmp_path / "disk").mkdir()
    path = tmp_path / "disk" / format_.place
    images = big(range(60 if format_.name == "uniter" else 30))

    def work(disk):
        flushed, reason = write_until_full(format_, path, images)
        assert "no space left" in reason.lower()
        assert len(flushed) > 5
        check(format_, path, flushed)
        disk.resize("9m")
        go_on(format_, path, images, flushed)
        disk.make_read_only()
        check(format_, path, images)
        with pytest.raises(OutputError) as caught:
            writer = format_.writer(path)
            writer.write("new", support.some_regions())
        assert str(path) in str(caught.value)

    deaths.on_small_disk(tmp_path / "disk", "3m", work)


@pytest.mark.parametrize("name", ["b", "sub/b"])
def test_a_store_that_is_deleted_is_not_made_again(format_, folder, path, name):
    writer = format_.writer(path)
    writer.write("a", support.some_regions())
    writer.flush()
    shutil.rmtree(folder)
    with pytest.raises(OutputError, match="No such file or directory") as caught:
        writer.write(name, support.some_regions())
        writer.flush()
    writer.abandon()
    assert str(path) in str(caught.value)
    assert not folder.exists()


@one_file
def test_a_store_that_is_replaced_is_left_alone(format_, folder, path):
    writer = format_.writer(path)
    writer.write("a", support.some_regions())
    writer.flush()
    shutil.move(path, folder / "moved")
    write(format_, path, {"other": support.some_regions(1)})
    writer.write("b", support.some_regions())
    with pytest.raises(OutputError, match="was replaced"):
        writer.flush()
    writer.abandon()
    check(format_, path, {"other": support.some_regions(1)})


def test_where_no_store_can_be(format_, tmp_path):
    (tmp_path / "file").write_text("text\n")
    (tmp_path / "folder").mkdir()
    is_file = support.data_file(format_.name, path := tmp_path / "folder") == path
    wrong_kind = "folder" if is_file and format_.one_file else "file"
    for place in (
        tmp_path / wrong_kind,
        tmp_path / "file" / "below",
        tmp_path / "missing" / "below",
        "/proc/nothing",
    ):
        with pytest.raises(OutputError) as caught:
            format_.writer(place)
        assert str(place) in str(caught.value)
        assert "\n" not in str(caught.value)
    assert (tmp_path / "file").read_text() == "text\n"
    assert os.listdir(tmp_path / "folder") == []


@one_file
def test_a_file_of_something_else_is_left_alone(format_, path):
    file = support.data_file(format_.name, path)
    file.parent.mkdir(exist_ok=True)
    for content in (b"x", b"some text\nof lines\n", b"\0" * 10_000, b"a\t" * 9 + b"b\n"):
        file.write_bytes(content)
        with pytest.raises(OutputError, match=path.name) as caught:
            format_.writer(path)
        assert "\n" not in str(caught.value)
        assert file.read_bytes() == content


def test_an_image_that_is_not_there(format_, path):
    write(format_, path, {"a": support.some_regions()})
    with format_.reader(path) as reader:
        for name in ("b", "a/b", "keys", "", "\udcff"):
            assert name not in reader
            with pytest.raises(StoreError) as caught:
                reader.read(name)
            assert str(path) in str(caught.value)
            assert "\n" not in str(caught.value)


def test_readers_write_nothing(format_, folder, path):
    write(format_, path, numbered(range(3)))
    (folder / "lxmert.tsv.index").unlink(missing_ok=True)
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    check(format_, path, numbered(range(3)))
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before


def test_size_on_the_disk(format_, folder, path):
    regions = support.some_regions(count=36, dimension=2048, classes=1600)
    format_.writer(path).close()
    before = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    write(format_, path, {f"image{i}": regions for i in range(12)})
    after = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    expected = format_.writer.bytes_per_image(36, 2048, 1600, 4)
    assert 0.9 < (after - before) / 12 / expected < 1.05


def errors_of(*works):
    """The one line that each of the works on a damaged store fails with, if it does."""
    errors = []
    for work in works:
        try:
            work()
        except (StoreError, OutputError) as error:
            errors.append(str(error))
            assert "\n" not in errors[-1]
    return errors


def read_all(format_, path):
    """Read what can be read. Raises StoreError if something can't."""
    with format_.reader(path) as reader:
        works = [functools.partial(reader.read, name) for name in reader.names()]
        errors = errors_of(*works)
    if errors:
        raise StoreError(errors[0])


def write_one(format_, path):
    writer = format_.writer(path)
    try:
        writer.write("new", support.some_regions())
        writer.close()
    finally:
        writer.abandon()


def damaged(content, rng):
    """Copies of a file's content with something wrong."""
    for size in {0, 1, *(rng.randrange(len(content)) for _ in range(20)), len(content) - 1}:
        yield content[:size]
    for _ in range(150):
        place = rng.randrange(len(content))
        yield content[:place] + bytes([rng.randrange(256)]) + content[place + 1 :]
    for _ in range(20):
        begin, length = rng.randrange(len(content)), rng.randrange(1, 600)
        yield content[:begin] + bytes(length) + content[begin + length :]


def cut(content, rng):
    """Copies that lack a page or more at the end."""
    for _ in range(170):
        yield content[: rng.randrange(len(content) - 4096)]
    yield content


@pytest.mark.slow
def test_every_damage_is_an_error_of_one_line(format_, folder, path):
    """In a child, since damage that gets to a library could end the process."""
    write(format_, path, numbered(range(4)))
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    if not format_.one_file:
        files = files[:2]
    whole = folder.with_name("whole")
    shutil.copytree(folder, whole)
    # LMDB's library follows a damaged file's numbers out of it. A file that is cut is seen.
    damages = cut if format_.name in LMDBS else damaged

    def work(send):
        rng = random.Random(format_.name)
        for file in files:
            wrongs = damages(file.read_bytes(), rng)
            for wrong in itertools.islice(wrongs, 0, None, max(len(files) // 2, 1)):
                file.write_bytes(wrong)
                errors = errors_of(lambda: read_all(format_, path))
                if format_.one_file:  # a folder's files have no part in writing others
                    errors += errors_of(lambda: write_one(format_, path))
                    shutil.rmtree(folder)
                    shutil.copytree(whole, folder)
                assert all(str(path) in error for error in errors)
                send(len(errors))
            shutil.copyfile(whole / file.relative_to(folder), file)

    counts = deaths.in_child(work)
    assert len(counts) > 150
    assert len(set(counts)) > 1
    check(format_, path, numbered(range(4)))


def test_find_stores_that_lie_in_one_folder(tmp_path):
    for format_ in FORMATS.values():
        write(format_, tmp_path / format_.place, {"sub/a": support.some_regions()})
    expected = [(format_, tmp_path / format_.place) for format_ in FORMATS.values()]
    assert find_stores(tmp_path) == expected
    with pytest.raises(StoreError, match=r"several stores \(mmf, npz, lmdb"):
        open_reader(tmp_path)
    for name, format_ in FORMATS.items():
        reader = open_reader(tmp_path, name)
        assert type(reader) is format_.reader
        assert list(reader.names()) == ["sub/a"]
        reader.close()


def test_a_store_under_any_name(format_, tmp_path):
    path = tmp_path / "any.name"
    write(format_, path, {"sub/a": support.some_regions(count=100, dimension=4000)})
    assert find_stores(path) == [(format_, path)]
    with open_reader(path) as reader:
        assert isinstance(reader, FeatureReader)
        assert list(reader.names()) == ["sub/a"]
    with open_reader(str(path), format_.name) as reader:
        assert len(reader) == 1


def test_one_store_in_an_output_folder_needs_no_name(format_, folder, path):
    write(format_, path, {"a": support.some_regions()})
    (folder / "manifest.json").write_text("{}\n")
    (folder / "failures.tsv").write_text("a\tb\n")
    with open_reader(folder) as reader:
        assert type(reader) is format_.reader
    others = [name for name in FORMATS if name != format_.name]
    for name in others:
        with pytest.raises(StoreError, match=f"no store {name}"):
            open_reader(folder, name)


def test_what_is_no_store(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a_info.npy").write_bytes(b"")
    (tmp_path / "sub" / ".a.npy").write_bytes(b"")
    (tmp_path / "sub" / ".a.npz.tmp").write_bytes(b"")
    (tmp_path / "sub" / "features.h5").write_bytes(b"text")
    (tmp_path / "features.h5").write_bytes(b"text")
    (tmp_path / "lxmert.tsv").write_bytes(b"a\tb\n")
    (tmp_path / "butd.tsv").write_bytes(b"")
    (tmp_path / "features.lmdb").mkdir()
    (tmp_path / "features.lmdb" / "data.mdb").write_bytes(b"text")
    assert find_stores(tmp_path) == []
    for place in (tmp_path, tmp_path / "features.h5", tmp_path / "features.lmdb"):
        with pytest.raises(StoreError, match="no store of the formats mmf, npz"):
            open_reader(place)
    with pytest.raises(StoreError, match="No such file or directory"):
        open_reader(tmp_path / "missing")
    with pytest.raises(ConfigError, match="'csv' is unknown; valid are mmf, npz, lmdb"):
        format_named("csv")


@pytest.mark.parametrize("name", ["mmf", "npz", "openvqa", "lmdb"])
def test_no_code_in_a_pickle_is_run(tmp_path, name):
    made = tmp_path / "made"
    regions = support.some_regions(extra={"split": support.Runs(str(made))})
    write(FORMATS[name], tmp_path / "store", {"a": regions})
    with FORMATS[name].reader(tmp_path / "store") as reader:
        with pytest.raises(StoreError, match=r"store/.*: .*posix\.mkdir"):
            reader.read("a")
    assert not made.exists()
