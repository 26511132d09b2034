"""The TSVs: what LXMERT and bottom-up-attention make of them, those of others, and the index."""

import base64
import csv
import random

import deaths
import numpy as np
import pytest
import store_files
import support

from vmb_d2.errors import OutputError, StoreError
from vmb_d2.stores.line_index import Index
from vmb_d2.stores.tsv import BUTDReader, BUTDWriter


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
    store_files.write(path, kind, images)


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


def foreign(path, images, end="\r\n"):
    """A TSV as bottom-up-attention writes it: csv's lines end with CR LF."""
    with open(path, "a", newline="") as file:
        rows = csv.writer(file, delimiter="\t", lineterminator=end)
        for name, regions in images.items():
            boxes = base64.b64encode(regions.bbox).decode()
            features = base64.b64encode(regions.features).decode()
            rows.writerow([name, 640, 427, len(regions), boxes, features])
    return path


@pytest.mark.parametrize("end", ["\r\n", "\n"])
def test_a_tsv_of_another_program(path, images, end):
    foreign(path, images, end)
    check(path, images)
    assert not Index.path(path).exists()
    check_writer(path, images)
    write(path, more := {"more": support.some_regions(9)})
    check_writer(path, images | more)


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


@pytest.mark.parametrize("tail", [b"half", b"\0" * 700, b"x\t" * 5 + b"y\n"])
def test_what_a_death_leaves_behind_the_indexed_lines_goes(path, images, tail):
    write(path, images)
    foreign(path, more := {"more": support.some_regions(9)})  # a whole line is kept
    images |= more
    whole = path.read_bytes()
    path.write_bytes(whole + tail)
    check(path, images)
    check_writer(path, images)
    assert path.read_bytes() == whole


@pytest.mark.parametrize("change", [
    lambda index: b"",
    lambda index: index[: len(index) // 2],
    lambda index: index + b"\0" * 100,
    lambda index: index.replace(b"\t", b"\n", 3),
    lambda index: index.replace(b"sub/image 5", b"sub/image 7"),
    lambda index: index.replace(b"sub/image 0", b"sub/image 7"),
    lambda index: index + b"9" * 99 + b"\t10\tx\n",
    lambda index: index + index,
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
        (b"a\t640\t427\tfive\tAAAA\tAAAA\n", "is damaged"),
        (b"a\t640\t427\t-1\t\t\n", "is damaged"),
        (b"a\t640\t427\t1\tAAAA\tAAAAAA==\n", "is damaged"),
        (b"a\t640\t427\t1\tAAAAAAAAAAAAAAAAAAAAAA==\tAA_AAA==\n", "is damaged"),
        (b"a\t640\t427\t2\t" + b"A" * 42 + b"==\tAAAAAAAAAAAAAAAA\n", "is damaged"),
        (b"\xff\t640\n", "is damaged"),
        (b"\t640\n", "no image's line"),
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
