"""Packing: what goes from any format to any other, and what is left after any end."""

import base64
import csv
import itertools
import logging
import os
import random
import shutil
import signal
import sys
import time
import weakref

import numpy as np
import pytest
import support
from store_files import assert_images, full_regions, kept, read, write

from vmb_d2.errors import ConfigError, InputError, OutputError, StoreError
from vmb_d2.packing import packing
from vmb_d2.packing.job import pack
from vmb_d2.stores import FORMATS
from vmb_d2.structures.regions import RegionFeatures

ALL = list(FORMATS)
# A file for each image, a database, an appended text file, an appended binary one.
SOME = ["mmf", "lmdb", "lxmert_tsv", "hdf5"]


def place(folder, format_name):
    """Where a folder has its store of a format."""
    folder.mkdir(exist_ok=True)
    return folder / FORMATS[format_name].place


def packed(folder, format_name):
    """All images of the store of a format in a folder."""
    return read(folder / FORMATS[format_name].place, format_name)


@pytest.fixture
def images():
    return {
        "a": full_regions(1),
        "b": support.some_regions(2),
        "sub/c": full_regions(3, count=1),
        "no regions": full_regions(4, count=0),
        "as LXMERT has it": full_regions(5, cls_prob=None, objects_conf=np.float32([0.5] * 5)),
    }


@pytest.mark.parametrize(
    ("a", "b"), [*((a, "mmf") for a in ALL), *(("npz", b) for b in ALL), ("lxmert_tsv", "uniter")]
)
def test_from_any_and_to_any(tmp_path, images, a, b):
    source = write(place(tmp_path / "in", a), a, images)
    report = pack([source], b, tmp_path / "out")
    assert (report.packed, report.there_before, report.failures) == (len(images), 0, {})
    assert_images(packed(tmp_path / "out", b), {n: kept(r, a, b) for n, r in images.items()})


BARE = RegionFeatures(np.ones((3, 16), np.float32), None, 3, None, None, None, None)
# What is said of an image that has features alone.
WITHOUT = {
    "mmf": [],
    "lxmert_tsv": [
        "mmf has no bbox, objects, image_width, image_height, objects_conf, attrs_id, attrs_conf: "
        "written as zeros"
    ],
    "butd_tsv": ["mmf has no bbox, image_width, image_height: written as zeros"],
    "hdf5": ["mmf has no attrs_id, attrs_conf: written as zeros"],
    "oscar": [
        "mmf has no bbox, image_width, image_height: written as zeros",
        "mmf has no objects: written with empty class names",
    ],
    "uniter": [
        "mmf has no bbox, image_width, image_height: written without norm_bb",
        "mmf has no cls_prob: written without soft_labels, which UNITER's pre-training needs",
        "mmf has no confidence: written with objects_conf of the first num_boxes regions as conf, "
        "0 for the others (without conf where there is no objects_conf)",
    ],
}


@pytest.mark.parametrize("name", WITHOUT)
def test_what_a_format_cant_leave_out_is_said(tmp_path, caplog, name):
    caplog.set_level(logging.INFO)
    source = write(tmp_path / "in", "mmf", {"x": BARE})
    pack([source], name, tmp_path / "out")
    assert_images(packed(tmp_path / "out", name), {"x": kept(BARE, name)})
    lines = [m for m in caplog.messages if "written" in m and "features" not in m]
    assert lines == WITHOUT[name]


def test_what_has_no_place_is_said_once(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    source = write(tmp_path / "in", "mmf", {f"x{i}": support.some_regions(i) for i in range(3)})
    write(source, "mmf", {"y": full_regions(9), "z": full_regions(8)})
    pack([source], "butd_tsv", tmp_path)
    lost = [m for m in caplog.messages if "no place" in m]
    assert lost == [
        "butd_tsv has no place for num_boxes, objects, cls_prob, objects_conf",
        "butd_tsv has no place for class_logits, attrs_id, attrs_conf, attribute_ids, "
        "attribute_scores, split, weights, number",
    ]
    assert caplog.messages.index(lost[0]) < caplog.messages.index("5 of 5 images to pack")


@pytest.mark.parametrize("name", ["mmf", "lxmert_tsv", "uniter"])
def test_dtypes(tmp_path, caplog, name):
    caplog.set_level(logging.INFO)
    half = {"h": support.some_regions(1)}
    halves = write(place(tmp_path / "half", "mmf"), "mmf", half, "float16")
    singles = write(place(tmp_path / "single", "mmf"), "mmf", {"s": support.some_regions(2)})
    writer = FORMATS[name].writer
    half_, single = writer.dtype_for("float16").name, writer.dtype_for("float32").name

    def dtypes(folder, *sources, dtype=None):
        pack(sources, name, tmp_path / folder, dtype=dtype)
        return {n: r.features.dtype.name for n, r in packed(tmp_path / folder, name).items()}

    assert dtypes("a", halves) == {"h": half_}
    said = f"{name} keeps features as {half_} only" in caplog.messages
    assert said is (half_ != "float16")
    assert dtypes("b", singles) == {"s": single}
    assert dtypes("c", halves, singles) == {"h": single, "s": single}
    assert dtypes("d", singles, dtype="float16") == {"s": half_}
    assert dtypes("e", halves, dtype="float32") == {"h": single}
    found = packed(tmp_path / "a", name)["h"].features
    assert np.array_equal(found, half["h"].features.astype("float16"))


@pytest.mark.parametrize("name", SOME)
def test_several_to_one_and_nothing_twice(tmp_path, name):
    parts, expected = [], {}
    for i in range(3):
        images = {f"{i}/x{j}": support.some_regions(10 * i + j) for j in range(4)}
        parts.append(write(place(tmp_path / f"part{i}", name), name, images))
        expected.update({n: kept(r, name) for n, r in images.items()})
    assert pack(parts[:2], name, tmp_path / "out").packed == 8
    report = pack(parts, name, tmp_path / "out")
    assert (report.packed, report.there_before) == (4, 8)
    assert_images(packed(tmp_path / "out", name), expected)


def test_a_name_in_two_sources(tmp_path):
    one = write(tmp_path / "one", "mmf", {n: support.some_regions(1) for n in "abc"})
    two = write(tmp_path / "two", "mmf", {n: support.some_regions(2) for n in "bcd"})
    with pytest.raises(InputError, match="2 names are in more than one source: b; c"):
        pack([one, two], "mmf", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    pack([one, two], "mmf", tmp_path / "out", duplicates="first")
    seeds = {"a": 1, "b": 1, "c": 1, "d": 2}
    expected = {n: support.some_regions(i) for n, i in seeds.items()}
    assert_images(packed(tmp_path / "out", "mmf"), expected)


# Names that a format can't keep beside the others, and how many have to go.
UNKEEPABLE = {
    "mmf": (["a", "x", "x_info", "l" * 251], 2),
    "lxmert_tsv": (["a", "b\tc", "b c", 'q"'], 2),
    "hdf5": (["a", "a/b", "a/c", "a/c/d", "e/./f", "e", "g/h", "i/j/k", "i"], 4),
}


@pytest.mark.parametrize("name", UNKEEPABLE)
def test_what_the_target_cant_keep_is_left_out_on_request(tmp_path, caplog, name):
    names, count = UNKEEPABLE[name]
    images = {n: support.some_regions(i) for i, n in enumerate(names)}
    source = write(place(tmp_path / "in", "lmdb"), "lmdb", images)
    with pytest.raises(InputError, match=r"can't be stored as .*\(skip leaves such images out\)"):
        pack([source], name, tmp_path / "out")
    report = pack([source], name, tmp_path / "out", skip=True)
    found = packed(tmp_path / "out", name)
    assert_images(found, {n: kept(images[n], name) for n in found})
    assert len(found) == report.packed == len(images) - count
    (line,) = [r.getMessage() for r in caplog.records if "left out" in r.getMessage()]
    assert line.startswith(f"{name}: {count} images left out: ")
    assert all(f"{lost!r} (" in line for lost in images.keys() - found.keys())
    again = pack([source], name, tmp_path / "out", skip=True)
    assert (again.packed, again.there_before) == (0, len(found))


def test_as_few_as_will_do():
    """Every choice of names tried."""
    chance = random.Random(0)
    for _ in range(50):
        names = {
            "/".join(chance.choices("ab.", (5, 5, 1), k=chance.randint(1, 3))) for _ in "1234567"
        }
        writer = FORMATS["hdf5"].writer
        fitting = [
            keep
            for size in range(len(names) + 1)
            for keep in itertools.combinations(sorted(names), size)
            if not any(writer.problems(keep))
        ]
        left_out = dict(writer.problems(iter(names)))
        assert not any(writer.problems(names - left_out.keys()))
        assert len(names) - len(left_out) == max(map(len, fitting))


@pytest.mark.parametrize("name", ["lxmert_tsv", "butd_tsv"])
def test_images_that_the_formats_readers_stop_at(tmp_path, caplog, name):
    images = {"a": support.some_regions(1), "none": support.some_regions(2, count=0)}
    source = write(tmp_path / "in", "mmf", images)
    assert pack([source], name, tmp_path / "all").packed == 2
    words = "'none' (no regions, at which its readers stop)"
    assert f"{name}: 1 images that its readers can't read: {words}" in caplog.messages
    report = pack([source], name, tmp_path / "some", skip=True)
    assert (report.packed, list(report.left_out), report.failures) == (1, ["none"], {})
    assert list(packed(tmp_path / "some", name)) == ["a"]
    assert f"{name}: 1 images left out: {words}" in caplog.messages
    csv.field_size_limit(sys.maxsize)
    for folder, size in (("some", 1), ("all", 2)):  # as both programs read it
        rows = csv.reader((tmp_path / folder / FORMATS[name].place).open(), delimiter="\t")
        assert [_rows(row) for row in rows] == [5, "stops"][:size]


def _rows(row):
    count, data = int(row[-3]), np.frombuffer(base64.b64decode(row[-1]), np.float32)
    try:
        return len(data.reshape(count, -1))
    except ValueError:
        return "stops"


@pytest.mark.parametrize("name", SOME)
def test_a_source_is_no_target(tmp_path, name):
    folder = tmp_path / "in"
    source = write(place(folder, name), name, {"a/x": support.some_regions()})
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    (tmp_path / "link").symlink_to(folder)
    targets = [folder, tmp_path / "link"]
    if source.is_file():
        (tmp_path / "linked").mkdir()
        os.link(source, tmp_path / "linked" / source.name)
        targets.append(tmp_path / "linked")
    elif name == "mmf":
        targets += [source / "below", tmp_path]
    for target in targets:
        with pytest.raises(ConfigError, match="shares files with the source"):
            pack([source], name, target)
    if source != folder:
        assert pack([source], "mmf", folder).packed == 1  # both in one output folder
    assert {p: p.read_bytes() for p in before} == before


def test_formats_of_equal_files_may_only_meet_in_their_places(tmp_path):
    images = {"a": support.some_regions()}
    plain = write(tmp_path / "plain", "npz", images)
    assert pack([plain], "openvqa", plain).packed == 1
    assert pack([plain / "openvqa"], "npz", plain, source_format="openvqa").there_before == 1
    odd = write(tmp_path / "odd" / "openvqa", "npz", images)
    with pytest.raises(ConfigError, match="shares files with the source"):
        pack([odd], "openvqa", tmp_path / "odd", source_format="npz")
    assert pack([odd], "mmf", odd, source_format="npz").packed == 1


@pytest.mark.parametrize("name", SOME)
def test_no_images(tmp_path, name):
    source = write(place(tmp_path / "in", "lmdb"), "lmdb", {})
    assert pack([source], name, tmp_path / "out").packed == 0
    assert packed(tmp_path / "out", name) == {}


@pytest.fixture
def ten(tmp_path):
    return write(tmp_path / "in", "mmf", {f"x{i}": support.some_regions(i) for i in range(10)})


def test_reads_one_image_at_a_time(tmp_path, monkeypatch, ten):
    reader, references, alive = FORMATS["mmf"].reader, [], []
    read_one = reader.read

    def counted(self, name):
        alive.append(sum(reference() is not None for reference in references))
        regions = read_one(self, name)
        references.append(weakref.ref(regions))
        return regions

    monkeypatch.setattr(reader, "read", counted)
    pack([ten], "mmf", tmp_path / "out")
    assert len(alive) == 10 + 1  # the first is read before the work, too
    assert not any(alive)


def test_a_source_that_goes_midway(tmp_path, monkeypatch, ten):
    reader, read_one, reads = FORMATS["mmf"].reader, FORMATS["mmf"].reader.read, []

    def vanishing(self, name):
        reads.append(name)
        if len(reads) == 5:
            shutil.rmtree(ten)
        return read_one(self, name)

    monkeypatch.setattr(reader, "read", vanishing)
    with pytest.raises(StoreError, match="in: is gone"):
        pack([ten], "mmf", tmp_path / "out")
    assert len(packed(tmp_path / "out", "mmf")) == 3


@pytest.mark.parametrize("name", SOME)
def test_a_full_disk_keeps_what_was_flushed(tmp_path, monkeypatch, name):
    monkeypatch.setattr(packing, "FLUSH_IMAGES", 2)
    images = {f"x{i}": support.some_regions(i) for i in range(6)}
    images["z"] = support.some_regions(9, dimension=200_000)
    source = write(tmp_path / "in", "mmf", images)
    out = tmp_path / "out"
    with support.file_size_limit(1 << 20), pytest.raises(OutputError) as caught:
        pack([source], name, out)
    assert "\n" not in str(caught.value)
    assert_images(packed(out, name), {n: kept(r, name) for n, r in images.items() if n != "z"})
    assert pack([source], name, out).packed == 1
    assert_images(packed(out, name), {n: kept(r, name) for n, r in images.items()})


@pytest.mark.slow
@pytest.mark.parametrize("name", SOME)
def test_killed_at_any_moment_it_goes_on(tmp_path, monkeypatch, name):
    monkeypatch.setattr(packing, "FLUSH_IMAGES", 8)
    reader = FORMATS["lmdb"].reader
    read_one = reader.read
    monkeypatch.setattr(reader, "read", lambda *args: time.sleep(0.002) or read_one(*args))
    images = {f"d{i % 3}/x{i}": support.some_regions(i) for i in range(100)}
    source = write(tmp_path / "in.lmdb", "lmdb", images)
    chance, killed = random.Random(5), 0
    for _ in range(5):
        child = os.fork()
        if not child:
            try:
                pack([source], name, tmp_path / "out")
            finally:
                os._exit(0)
        time.sleep(chance.random() * 0.1)
        os.kill(child, signal.SIGKILL)
        killed += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    pack([source], name, tmp_path / "out")
    assert_images(packed(tmp_path / "out", name), {n: kept(r, name) for n, r in images.items()})
    assert killed
