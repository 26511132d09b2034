"""Oscar's TSVs: what Oscar makes of them, those of others, and what holds the two together."""

import base64
import dataclasses
import errno
import json
import os

import numpy as np
import pytest
import store_files
import support

from vmb_d2.errors import ConfigError, OutputError, StoreError
from vmb_d2.output.open_stores import open_reader
from vmb_d2.stores import line_files
from vmb_d2.stores.oscar import OscarReader, OscarWriter
from vmb_d2.structures.class_names import ClassNames

FILES = ["features.lineidx", "features.tsv", "labels.lineidx", "labels.tsv"]
ONES = base64.b64encode(np.ones(8, np.float32))  # ends with no box of width 1
NAMES = ClassNames(tuple(f"thing {i}" for i in range(9)), source="names.json")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "oscar"


@pytest.fixture
def images():
    return {f"sub/ü {i}": support.some_regions(i, count=3) for i in range(6)}


def write(path, images, class_names=NAMES):
    store_files.write(path, "oscar", images, class_names=class_names)


class TSVFile:
    """Oscar's: rows by the byte offsets of the .lineidx."""

    def __init__(self, path):
        self.file = open(path)  # noqa: SIM115
        with open(os.path.splitext(path)[0] + ".lineidx") as lineidx:
            self.offsets = [int(line.strip()) for line in lineidx]

    def __len__(self):
        return len(self.offsets)

    def __getitem__(self, row):
        self.file.seek(self.offsets[row])
        return [column.strip() for column in self.file.readline().split("\t")]


def as_oscar_reads(features, labels, most=50):
    """Oscar captioning's CaptionTSVDataset: {key: (features, class names)}, both by row."""
    features, labels = TSVFile(features), TSVFile(labels)
    assert len(features) == len(labels)
    found = {}
    for row in range(len(features)):
        key, content = features[row]
        info = json.loads(content)
        values = np.frombuffer(base64.b64decode(info["features"]), np.float32)
        values = values.reshape(info["num_boxes"], -1)
        of_labels, content = labels[row]
        assert of_labels == key
        assert len(json.loads(content)) == len(values)
        text = " ".join(label["class"] for label in json.loads(content)[:most])
        found[key] = values[:most], text
    return found


def check(path, images):
    """Oscar reads these, whole, and so does our reader; nothing else is there."""
    assert sorted(os.listdir(path)) == FILES
    found = as_oscar_reads(path / "features.tsv", path / "labels.tsv")
    assert list(found) == list(images)
    with OscarReader(path) as reader:
        assert list(reader.names()) == list(images)
        for name, regions in images.items():
            assert np.array_equal(found[name][0][:, :-6], regions.features)
            assert np.array_equal(reader.read(name).features, regions.features)
            assert np.array_equal(reader.read(name).objects, regions.objects)


def foreign(folder, images, features="train.feature.tsv", labels="train.label.tsv", lineidx=True):
    """The files of another program: no more keys than Oscar reads."""
    folder.mkdir(exist_ok=True)
    contents = {features: [], labels: []}
    for name, regions in images.items():
        values = np.concatenate([regions.features, regions.normalized_boxes()], axis=1)
        text = base64.b64encode(values.tobytes()).decode()
        contents[features].append((name, {"num_boxes": len(regions), "features": text}))
        own = [{"class": f"thing {k}", "attributes": ["red"]} for k in regions.objects]
        contents[labels].append((name, own))
    for file, rows in contents.items():
        lines = [f"{name}\t{json.dumps(content)}\n".encode() for name, content in rows]
        (folder / file).write_bytes(b"".join(lines))
        if lineidx:
            offsets = np.cumsum([0, *map(len, lines)])[:-1]
            text = "".join(f"{offset}\n" for offset in offsets)
            (folder / file).with_suffix(".lineidx").write_text(text)
    return folder / features


def test_what_oscar_reads(path):
    regions = support.some_regions(1, count=60, dimension=2048)
    write(path, {"sub/ü 1": regions, "b": support.some_regions(2, dimension=2048)})
    found = as_oscar_reads(path / "features.tsv", path / "labels.tsv", most=60)
    assert list(found) == ["sub/ü 1", "b"]
    values, text = found["sub/ü 1"]
    assert (values.dtype, values.shape) == (np.float32, (60, 2054))
    assert np.array_equal(values[:, :2048], regions.features)
    for row, box in zip(values[:, 2048:], regions.bbox.astype(np.float64), strict=True):
        x1, y1, x2, y2 = box
        expected = [x1 / 640, y1 / 427, x2 / 640, y2 / 427, (x2 - x1) / 640, (y2 - y1) / 427]
        np.testing.assert_allclose(row, expected, rtol=3e-7)
    assert text == " ".join(f"thing {k}" for k in regions.objects)


def test_with_the_background_the_classes_move_up_by_one(path):
    regions = support.some_regions(classes=10, objects=np.array([0, 1, 9, 2, 0]))
    write(path, {"a": regions})
    ((_, text),) = as_oscar_reads(path / "features.tsv", path / "labels.tsv").values()
    assert text == "background thing 0 thing 8 thing 1 background"
    known = dataclasses.replace(NAMES, with_background=True)
    write(path, {"b": dataclasses.replace(regions, cls_prob=None)}, known)
    texts = as_oscar_reads(path / "features.tsv", path / "labels.tsv")
    assert texts["b"][1] == text


def labels_of(path):
    """The labels of the store's only image."""
    _, content = TSVFile(path / "labels.tsv")[0]
    return json.loads(content)


def test_attributes_with_a_score_and_their_names(path):
    """As VinVL's predictions have them; ids beside the names, from which they are read back."""
    ids = np.array([[4, 0, 2], [1, 3, 0], [2, 4, 1]])
    scores = np.array([[0.75, 0.5, 0], [0.25, 0, 0], [0, 0, 0]], np.float32)
    best = {"attrs_id": ids[:, 0], "attrs_conf": scores[:, 0]}
    regions = support.some_regions(count=3, attribute_ids=ids, attribute_scores=scores, **best)
    red = dataclasses.replace(NAMES, attributes=tuple("abcde"), attribute_source="a.txt")
    write(path, {"a": regions}, red)
    keys = ("attributes", "attribute_ids", "attr_scores")
    assert [[label[key] for key in keys] for label in labels_of(path)] == [
        [["e", "a"], [4, 0], [0.75, 0.5]],
        [["b"], [1], [0.25]],
        [[], [], []],
    ]
    with OscarReader(path) as reader:
        found = reader.read("a")
    assert np.array_equal(found.attribute_scores, scores[:, :2])
    assert np.array_equal(found.attribute_ids, [[4, 0], [1, 0], [0, 0]])
    assert np.array_equal(found.attrs_id, [4, 1, 0])
    assert np.array_equal(found.attrs_conf, scores[:, 0])


def test_the_best_attribute_alone_and_without_names(path):
    best = {"attrs_id": np.array([3, 9]), "attrs_conf": np.array([0.5, 0], np.float32)}
    write(path, {"a": support.some_regions(count=2, **best)})
    found = [[label.get(k) for k in ("attributes", "attribute_ids")] for label in labels_of(path)]
    assert found == [[None, [3]], [None, []]]


def test_an_attribute_without_a_name_is_refused(path):
    few = dataclasses.replace(NAMES, attributes=("a",), attribute_source="a.txt")
    best = {"attrs_id": np.array([1]), "attrs_conf": np.array([0.5], np.float32)}
    with pytest.raises(ConfigError, match=r"a\.txt has 1 names, none for the attribute 1"):
        write(path, {"a": support.some_regions(count=1, **best)}, few)


def test_names_of_other_classes_are_refused_before_anything_is_written(path):
    writer = OscarWriter(path, class_names=NAMES)
    for regions, reason in (
        (support.some_regions(classes=12), "names.json has 9 names, but there are 12 classes"),
        (support.some_regions(cls_prob=None, objects=np.full(5, 9)), "none for the class 9"),
    ):
        with pytest.raises(ConfigError, match=reason):
            writer.write("a", regions)
    writer.close()
    assert {(path / file).read_bytes() for file in FILES} == {b""}


def test_the_files_of_another_program(tmp_path, images):
    features = foreign(tmp_path / "in", images)
    assert store_files.kinds_of(features) == ["oscar"]
    before = {p: p.read_bytes() for p in features.parent.iterdir()}
    with open_reader(features) as reader:
        assert list(reader.names()) == list(images)
        for name, regions in images.items():
            found = reader.read(name)
            assert np.array_equal(found.features, regions.features)
            classes = [f"thing {k}" for k in regions.objects]
            assert found.extra == {"class_names": classes}
            for field in ("bbox", "objects", "objects_conf", "image_width", "attribute_ids"):
                assert getattr(found, field) is None
    assert {p: p.read_bytes() for p in features.parent.iterdir()} == before


def test_features_without_labels(tmp_path, images):
    features = foreign(tmp_path / "oscar", images, "features.tsv", "other.tsv", lineidx=False)
    with open_reader(tmp_path) as reader:
        assert reader.read("sub/ü 1").objects is None
    before = features.read_bytes()
    with pytest.raises(OutputError, match=r"labels\.tsv: is missing beside features\.tsv"):
        OscarWriter(tmp_path / "oscar")
    assert features.read_bytes() == before
    assert not (tmp_path / "oscar" / "labels.tsv").exists()
    alone = features.rename(features.with_name("img.tsv"))  # a name that says of no labels
    with open_reader(alone) as reader:
        assert len(reader) == len(images)


@pytest.mark.parametrize("lineidx", ["none", "of characters", "of another", "empty", "CR LF"])
def test_a_lineidx_that_doesnt_fit_is_made_anew(path, images, lineidx):
    """SGB's writer counts characters, so that it points beside the rows after a ü."""
    foreign(path, images, "features.tsv", "labels.tsv")
    right = {file: (path / file).read_bytes() for file in FILES}
    for file in ("features", "labels"):
        index, rows = path / f"{file}.lineidx", right[f"{file}.tsv"].decode().splitlines(True)
        characters = "".join(f"{n}\n" for n in np.cumsum([0, *map(len, rows)])[:-1])
        assert characters.encode() != right[index.name]
        index.unlink()
        contents = {
            "of characters": characters.encode(),
            "of another": b"0\n10\n",
            "empty": b"",
            "CR LF": right[index.name].replace(b"\n", b"\r\n"),
        }
        if lineidx in contents:
            index.write_bytes(contents[lineidx])
    with OscarReader(path) as reader:
        assert list(reader.names()) == list(images)
        for name, regions in images.items():
            assert np.array_equal(reader.read(name).features, regions.features)
    OscarWriter(path).close()
    assert {file: (path / file).read_bytes() for file in FILES} == right
    write(path, {"more": images["sub/ü 1"]})
    found = as_oscar_reads(path / "features.tsv", path / "labels.tsv")
    assert found["more"][1] == found["sub/ü 1"][1]


def rows(path):
    """The rows of a TSV."""
    return path.read_bytes().splitlines(keepends=True)


@pytest.mark.parametrize(
    ("features", "labels"),
    [(6, 6), (3, 6), (0, 1), (3.5, 4), (3.5, 3.5), (3, 3.5)],
)
@pytest.mark.parametrize("indexed", [0, 3])
def test_what_a_death_leaves_of_either_goes(path, images, features, labels, indexed):
    """Labels are safe before their features are written, and each before its index."""
    write(path, images)
    for file, count in (("features", features), ("labels", labels)):
        lines = rows(path / f"{file}.tsv")
        half = lines[int(count)][:40] if count % 1 else b""
        (path / f"{file}.tsv").write_bytes(b"".join(lines[: int(count)]) + half)
        index = rows(path / f"{file}.lineidx")[: min(indexed, int(count))]
        (path / f"{file}.lineidx").write_bytes(b"".join(index))
    there = dict(list(images.items())[: int(features)])
    writer = OscarWriter(path, class_names=NAMES)
    assert [name for name in images if name in writer] == list(there)
    writer.close()
    check(path, there)
    write(path, {name: r for name, r in images.items() if name not in there})
    check(path, images)


def test_labels_of_other_images_are_refused(path, images):
    """Oscar takes both by their row."""
    write(path, images)
    lines = rows(path / "labels.tsv")
    lines = [lines[1], lines[0], *lines[2:]]
    (path / "labels.tsv").write_bytes(b"".join(lines))
    before = {file: (path / file).read_bytes() for file in FILES}
    with pytest.raises(OutputError, match=r"labels\.tsv: its lines are not of the images"):
        OscarWriter(path)
    assert {file: (path / file).read_bytes() for file in FILES} == before


@pytest.mark.parametrize("full", ["labels.tsv", "features.tsv", "features.lineidx"])
def test_a_full_disk_between_the_files(path, images, monkeypatch, full):
    write(path, dict(list(images.items())[:3]))
    write_at, here = line_files.write_at, []

    def fails(descriptor, content, offset):
        here.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        if here[-1].endswith(full):
            write_at(descriptor, content[:5], offset)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_at(descriptor, content, offset)

    with monkeypatch.context() as patch:
        patch.setattr(line_files, "write_at", fails)
        with pytest.raises(OutputError, match="No space left"):
            write(path, dict(list(images.items())[3:]))
    with OscarReader(path) as reader:
        assert list(reader.names()) == list(images)[:3]
    write(path, dict(list(images.items())[3:]))
    check(path, images)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"a\tb\tc\n", "3 columns, not 2"),
        (b"a\tno JSON\n", "is damaged"),
        (b'a\t{"num_boxes": 1}\n', "is damaged"),
        (b'a\t{"num_boxes": 3, "features": "AAAA"}\n', "is damaged"),
        (b'a\t{"num_boxes": 1, "features": "' + ONES + b'"}\n', "8 numbers, the last 6 no"),
        (b'a\t{"num_boxes": 1, "features": "AACAPwAAgD8="}\n', "2 numbers, the last 6"),
        (b"a\t" + b"[" * 100_000 + b"\n", "is damaged"),
    ],
)
def test_rows_that_are_no_features(path, images, content, reason):
    write(path, images)
    lines = rows(path / "features.tsv")
    lines.insert(1, content)
    (path / "features.tsv").write_bytes(b"".join(lines))
    with pytest.raises(StoreError, match=f"{path}.*{reason}"), OscarReader(path) as reader:
        reader.read("a")
    with pytest.raises(OutputError, match=reason):
        OscarWriter(path)
