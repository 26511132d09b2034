"""The TSVs: what LXMERT and bottom-up-attention make of them, those of others, and the index."""

import base64
import csv
import os
import random
import sys
import tracemalloc

import deaths
import numpy as np
import pytest
import store_files
import support

from vmb_d2.errors import OutputError, StoreError
from vmb_d2.stores.line_index import Index
from vmb_d2.stores.tsv import BUTDReader, BUTDWriter, LXMERTReader

LXMERT_FIELDS = [
    "img_id",
    "img_h",
    "img_w",
    "objects_id",
    "objects_conf",
    "attrs_id",
    "attrs_conf",
    "num_boxes",
    "boxes",
    "features",
]


@pytest.fixture
def regions():
    return support.some_regions()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "butd.tsv"


@pytest.fixture
def images():
    return {f"sub/image {i}": support.some_regions(i) for i in range(6)}


def write(path, images, kind="butd_tsv"):
    store_files.write(kind, path, images)


def check(path, images):
    """These are in the store of butd_tsv, in this order."""
    with BUTDReader(path) as reader:
        assert list(reader.names()) == list(images)
        for name, regions in images.items():
            assert np.array_equal(reader.read(name).features, regions.features)


def check_writer(path, images):
    """A writer finds these, and leaves an index of all of them."""
    writer = BUTDWriter(path)
    assert all(name in writer for name in images)
    writer.close()
    check(path, images)
    entries = [line.split("\t") for line in Index.path(path).read_text().splitlines()]
    assert [name for _, _, name in entries] == list(images)
    content = path.read_bytes()
    for offset, length, name in entries:
        line = content[int(offset) : int(offset) + int(length)]
        assert line.startswith(f"{name}\t".encode())
        assert line.endswith(b"\n")
    assert sum(int(length) for _, length, _ in entries) == len(content)


def as_lxmert_reads(path):
    """LXMERT's load_obj_tsv."""
    csv.field_size_limit(sys.maxsize)
    data = []
    with open(path) as file:
        for item in csv.DictReader(file, LXMERT_FIELDS, delimiter="\t"):
            for key in ("img_h", "img_w", "num_boxes"):
                item[key] = int(item[key])
            boxes = item["num_boxes"]
            for key, shape, dtype in (
                ("objects_id", (boxes,), np.int64),
                ("objects_conf", (boxes,), np.float32),
                ("attrs_id", (boxes,), np.int64),
                ("attrs_conf", (boxes,), np.float32),
                ("boxes", (boxes, 4), np.float32),
                ("features", (boxes, -1), np.float32),
            ):
                item[key] = np.frombuffer(base64.b64decode(item[key]), dtype=dtype)
                item[key] = item[key].reshape(shape)
            data.append(item)
    return data


def foreign(path, images, end="\r\n"):
    """A TSV as bottom-up-attention writes it: csv's lines end with CR LF."""
    with open(path, "a", newline="") as file:
        rows = csv.writer(file, delimiter="\t", lineterminator=end)
        for name, regions in images.items():
            boxes = base64.b64encode(regions.bbox).decode()
            features = base64.b64encode(regions.features).decode()
            rows.writerow([name, 640, 427, len(regions), boxes, features])
    return path


def test_what_lxmert_reads(path, regions):
    full = support.some_regions(
        1, attrs_id=np.arange(5), attrs_conf=np.linspace(0.1, 1, 5, dtype=np.float32)
    )
    unknown = support.some_regions(2, cls_prob=None, objects=None)
    write(path, {"sub/ü 1": regions, "b": full, "c": unknown}, "lxmert_tsv")
    first, second, third = as_lxmert_reads(path)
    assert (first["img_id"], first["img_h"], first["img_w"]) == ("sub/ü 1", 427, 640)
    assert first["num_boxes"] == 5  # rows, though num_boxes is 4
    assert np.array_equal(first["boxes"], regions.bbox)
    assert np.array_equal(first["features"], regions.features)
    assert np.array_equal(first["objects_id"], regions.objects)
    assert np.array_equal(first["objects_conf"], regions.objects_conf)
    assert not first["attrs_id"].any()
    assert not first["attrs_conf"].any()
    assert np.array_equal(second["attrs_id"], full.attrs_id)
    assert np.array_equal(second["attrs_conf"], full.attrs_conf)
    assert not third["objects_id"].any()
    assert not third["objects_conf"].any()


@pytest.mark.parametrize("end", ["\r\n", "\n"])
def test_a_tsv_of_another_program(path, images, end):
    foreign(path, images, end)
    check(path, images)
    assert not Index.path(path).exists()
    check_writer(path, images)


def test_a_tsv_of_another_program_is_added_to(path, images):
    names = list(images)
    foreign(path, {name: images[name] for name in names[:3]})
    write(path, {name: images[name] for name in names[3:]})
    check_writer(path, images)


def test_an_lxmert_tsv_of_another_program(path, regions):
    values = [
        regions.objects,
        regions.objects_conf,
        np.arange(5),
        np.full(5, 0.5, np.float32),
        None,
        regions.bbox,
        regions.features,
    ]
    fields = ["5" if v is None else base64.b64encode(v).decode() for v in values]
    path.write_bytes("\t".join(["COCO_1", "427", "640", *fields]).encode() + b"\r\n\r\n")
    with LXMERTReader(path) as reader:
        assert list(reader.names()) == ["COCO_1"]
        found = reader.read("COCO_1")
    assert np.array_equal(found.features, regions.features)
    assert np.array_equal(found.objects, regions.objects)
    assert np.array_equal(found.attrs_id, np.arange(5))
    assert (found.image_width, found.image_height, found.num_boxes) == (640, 427, 5)


def test_a_name_that_comes_twice_is_its_last_line(path):
    first, last = support.some_regions(0), support.some_regions(1)
    foreign(path, {"a": first, "b": first})
    foreign(path, {"a": last})
    for _ in range(2):
        with BUTDReader(path) as reader:
            assert list(reader.names()) == ["a", "b"]
            assert len(reader) == 2
            assert np.array_equal(reader.read("a").features, last.features)
        BUTDWriter(path).close()  # the second time with an index


def test_half_a_last_line_without_an_index_is_an_error_to_read_and_goes(path, images):
    """A file that was cut must not pass for a whole one; a run makes the image anew."""
    foreign(path, images)
    whole = path.read_bytes()
    begin = whole[:-1].rindex(b"\n") + 1
    there = dict(list(images.items())[:-1])
    for size in range(begin, len(whole), 61):
        path.write_bytes(whole[:size])
        Index.path(path).unlink(missing_ok=True)
        if size > begin:
            with pytest.raises(StoreError, match=r"butd\.tsv: ends in the middle of an image"):
                BUTDReader(path)
        check_writer(path, there)
        assert path.read_bytes() == whole[:begin]


@pytest.mark.parametrize(
    "tail",
    [b"half", b"\0" * 700, b"x\t" * 5 + b"y\n", b"half\0\n", None],
    ids=["half", "zeros", "columns", "line of zeros", "features with zeros"],
)
def test_what_a_death_leaves_behind_the_indexed_lines_goes(path, images, tail):
    write(path, images)
    whole = path.read_bytes()
    if tail is None:
        line = whole[: whole.index(b"\n") + 1].replace(b"image 0", b"image 9")
        tail = line[:-100] + b"\0" * 99 + b"\n" + whole[: whole.index(b"\n") + 1]
    path.write_bytes(whole + tail)
    check(path, images)
    check_writer(path, images)
    assert path.read_bytes() == whole


def test_whole_lines_behind_the_indexed_ones_are_kept(path, images):
    """Such as those that somebody appends."""
    names = list(images)
    write(path, {name: images[name] for name in names[:3]})
    foreign(path, {name: images[name] for name in names[3:]})
    check(path, images)
    check_writer(path, images)


@pytest.mark.parametrize("change", [
    lambda index: b"",
    lambda index: index[:-1],
    lambda index: index[: len(index) // 2],
    lambda index: index + b"123\t4",
    lambda index: index + b"\0" * 100,
    lambda index: index.replace(b"\t", b"\n", 3),
    lambda index: index.replace(b"sub/image 5", b"sub/image 7"),
    lambda index: index.replace(b"sub/image 0", b"sub/image 7"),
    lambda index: b"9" + index,
    lambda index: index.replace(b"\nS", b"\n") + b"99999999\t10\tx\n",
    lambda index: index + index,
    lambda index: b"\xff\n" + index,
])  # fmt: skip
def test_an_index_that_is_damaged_or_does_not_fit(path, images, change):
    write(path, images)
    tsv, index = path.read_bytes(), Index.path(path).read_bytes()
    Index.path(path).write_bytes(change(index))
    check(path, images)
    check_writer(path, images)
    assert (path.read_bytes(), Index.path(path).read_bytes()) == (tsv, index)


def test_the_index_of_another_tsv(path, images):
    """The TSV was written anew, by something that knows of no index."""
    write(path, images)
    for others in (
        {"x": support.some_regions(count=1)},  # shorter
        {f"other {i}": support.some_regions(i, count=7) for i in range(9)},  # longer
    ):
        path.unlink()
        foreign(path, others)
        check(path, others)
        content = path.read_bytes()
        check_writer(path, others)
        assert path.read_bytes() == content


def test_an_index_without_tsv(path, images):
    write(path, images)
    path.unlink()
    writer = BUTDWriter(path)
    assert not any(name in writer for name in images)
    writer.close()
    write(path, images)
    check_writer(path, images)


def test_an_index_that_points_elsewhere_shows_when_an_image_is_read(tmp_path):
    """Only some entries are compared when it is opened."""
    path = tmp_path / "butd.tsv"
    images = {f"image {i:03}": support.some_regions(i, count=2) for i in range(100)}
    write(path, images)
    index = Index.path(path).read_bytes()
    Index.path(path).write_bytes(index.replace(b"image 051", b"image 151"))
    with BUTDReader(path) as reader, pytest.raises(StoreError, match="not where the index says"):
        reader.read("image 151")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"a\tb\n", "2 columns, not 6"),
        (b"a\t640\t427\tfive\tAAAA\tAAAA\n", "no whole line"),
        (b"a\t640\t427\t-1\t\t\n", "num_boxes is -1"),
        (b"a\t640\t427\t1\tAAAA\tAAAAAA==\n", "no whole line"),
        (b"a\t640\t427\t1\tAAAAAAAAAAAAAAAAAAAAAA==\tAAA\n", "no whole line"),
        (b"a\t640\t427\t1\tAAAAAAAAAAAAAAAAAAAAAA==\tAA_AAA==\n", "no whole line"),
        (b"a\t640\t427\t2\t" + b"A" * 42 + b"==\tAAAAAAAAAAAAAAAA\n", "no whole line"),
        (b"a\t640\t427\t1\n", "4 columns"),
        (b"\xff\t640\n", "not UTF-8"),
        (b"\t640\n", "no image's line"),
        (b"text\n", "no image's line"),
    ],
)
def test_lines_that_are_no_images(path, images, line, reason):
    foreign(path, images)
    whole = path.read_bytes()
    cut = whole.index(b"\n") + 1
    path.write_bytes(whole[:cut] + line + whole[cut:])
    with pytest.raises(StoreError, match=reason) as caught, BUTDReader(path) as reader:
        reader.read("a")
    assert str(path) in str(caught.value)
    with pytest.raises(OutputError, match=rf"butd\.tsv: at byte {cut}: .*{reason}"):
        BUTDWriter(path)
    assert path.read_bytes() == whole[:cut] + line + whole[cut:]
    assert not Index.path(path).exists()


def test_one_line_at_a_time_is_in_memory(path):
    regions = support.some_regions(count=100, dimension=2048)
    foreign(path, {f"image {i}": regions for i in range(30)})
    tracemalloc.start()
    try:
        with BUTDReader(path) as reader:
            assert len(reader) == 30
        BUTDWriter(path).close()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * (path.stat().st_size / 30)


def test_an_index_that_is_deleted_while_it_is_written_to(path, regions):
    writer = BUTDWriter(path)
    writer.write("a", regions)
    Index.path(path).unlink()
    with pytest.raises(OutputError, match=r"butd\.tsv: can't be written: No such file"):
        writer.flush()
    writer.abandon()
    assert os.listdir(path.parent) == ["butd.tsv"]
    assert path.read_bytes() == b""


def test_what_is_taken_up_is_synced_before_the_index_has_it(path, images, monkeypatch):
    """A process died, and soon after it the machine."""
    names = list(images)
    write(path, {name: images[name] for name in names[:3]})
    synced = path.read_bytes()
    foreign(path, {name: images[name] for name in names[3:]}, end="\n")
    content, index = path.read_bytes(), Index.path(path).read_bytes()
    for seed in range(20):
        path.write_bytes(content)
        Index.path(path).write_bytes(index)
        with monkeypatch.context() as patch:
            machine = deaths.Machine(path.parent, patch)
            machine.forget(path, synced)
            BUTDWriter(path).abandon()
        machine.leave(random.Random(seed))
        with BUTDReader(path) as reader:
            assert names[:3] == list(reader.names())[:3]
            for name in reader.names():
                assert np.array_equal(reader.read(name).features, images[name].features)
