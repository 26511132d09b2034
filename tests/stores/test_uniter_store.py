"""UNITER's npz: what UNITER makes of them, and those of others."""

import dataclasses

import numpy as np
import pytest
import store_files
import support

from vmb_d2.errors import StoreError
from vmb_d2.output.open_stores import open_reader
from vmb_d2.stores.uniter import UniterReader
from vmb_d2.structures.class_names import ClassNames


def as_uniter_converts(file, keep_all=False, threshold=0.2, most=100, least=10):
    """What UNITER's conversion to its LMDB takes of a file: as many regions as are confident."""
    content = np.load(file, allow_pickle=True)
    count = None
    if not keep_all:
        count = max(least, int((content["conf"] > threshold).sum()))
        count = min(most, count)
    found = {}
    for key, array in content.items():
        if array.dtype == np.float32:
            array = array.astype(np.float16)
        if array.ndim == 2:
            found[key] = array[:count, :]
        elif array.ndim == 1:
            found[key] = array[:count]
        else:
            raise ValueError("wrong ndim")
    return found


def as_uniter_trains(converted):
    """Features, boxes of 7 numbers, and the targets of its masked region classification."""
    boxes = converted["norm_bb"].astype(np.float32)
    boxes = np.concatenate([boxes, boxes[:, 4:5] * boxes[:, 5:]], axis=1)
    return converted["features"].astype(np.float32), boxes, converted["soft_labels"]


def extracted(count=20, dimension=2048, classes=1600, **changes):
    """Regions with probabilities that leave some for the background."""
    rng = np.random.default_rng(count)
    whole = rng.dirichlet(np.full(classes + 1, 0.05), count).astype(np.float32)
    values = {
        "cls_prob": whole[:, :-1],
        "objects": whole[:, :-1].argmax(axis=1),
        "confidence": np.linspace(0.9, 0, count, dtype=np.float32),
        "num_boxes": count - 1,
    }
    return support.some_regions(count, count, dimension, **{**values, **changes}), whole[:, -1]


def write(folder, name, regions, **options):
    return store_files.write(folder, "uniter", {name: regions}, **options) / f"{name}.npz"


def test_what_uniter_reads(tmp_path):
    regions, background = extracted()
    file = write(tmp_path, "sub/coco_train2014_000000000009", regions)
    with np.load(file) as content:
        found = dict(content)
    expected = {"norm_bb": 6, "features": 2048, "conf": 1, "soft_labels": 1601}
    assert {key: array.shape for key, array in found.items()} == {
        key: (20, width) for key, width in expected.items()
    }
    assert {array.dtype for array in found.values()} == {np.dtype(np.float16)}
    converted = as_uniter_converts(file)
    assert len(converted["conf"]) == (regions.confidence > 0.2).sum() == 15
    features, boxes, soft_labels = as_uniter_trains(converted)
    assert np.array_equal(features, store_files.half(regions.features[:15]))
    for row, (x1, y1, x2, y2) in zip(boxes, regions.bbox.astype(np.float64), strict=False):
        w, h = (x2 - x1) / 640, (y2 - y1) / 427
        box = [x1 / 640, y1 / 427, x2 / 640, y2 / 427, w, h, w * h]
        np.testing.assert_allclose(row, box, rtol=2e-3)
    np.testing.assert_allclose(soft_labels[:, 0], background[:15], atol=1e-3)
    assert np.array_equal(soft_labels[:, 1:], regions.cls_prob[:15].astype(np.float16))


def test_the_backgrounds_column_where_it_was_extracted(tmp_path):
    regions, background = extracted()
    whole = np.concatenate([background[:, None], regions.cls_prob], axis=1)
    with_it = dataclasses.replace(regions, cls_prob=whole)
    file = write(tmp_path, "a", with_it, class_names=ClassNames(with_background=True))
    with np.load(file) as content:
        assert np.array_equal(content["soft_labels"], whole.astype(np.float16))
    found = UniterReader(tmp_path).read("a")
    assert np.array_equal(found.objects, regions.objects)


def test_a_confidence_that_isnt_known(tmp_path):
    """Of given boxes, or packed from a format that doesn't keep it."""
    regions = support.some_regions(count=6, num_boxes=4)
    with np.load(write(tmp_path, "a", regions)) as content:
        expected = [*regions.objects_conf[:4], 0, 0]
        assert np.array_equal(content["conf"][:, 0], np.float16(expected))
    unknown = support.some_regions(cls_prob=None, objects=None)
    file = write(tmp_path, "b", unknown)
    with np.load(file) as content:
        assert sorted(content.files) == ["features", "norm_bb"]
    assert len(as_uniter_converts(file, keep_all=True)["features"]) == 5


def test_packed_again_it_is_the_same_file(tmp_path):
    regions, _ = extracted(dimension=16, classes=9)
    file = write(tmp_path, "a", regions)
    again = write(tmp_path / "again", "a", UniterReader(tmp_path).read("a"))
    assert again.read_bytes() == file.read_bytes()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_the_files_of_another_program(tmp_path, save):
    rng = np.random.default_rng(0)
    content = {
        "norm_bb": rng.random((4, 6)),
        "features": rng.random((4, 8), dtype=np.float32),
        "conf": np.float16([[0.5], [0.25], [0], [0]]),
        "soft_labels": rng.random((4, 10)).astype(np.float16),
    }
    (tmp_path / "x").mkdir()
    save(tmp_path / "x" / "coco_9.npz", **content, image_id=9)
    with open_reader(tmp_path / "x") as reader:
        assert type(reader) is UniterReader
        found = reader.read("coco_9")
    assert np.array_equal(found.features, content["features"])
    assert found.features.dtype == np.float32
    assert (found.confidence.tolist(), found.num_boxes) == ([0.5, 0.25, 0, 0], 2)
    assert np.array_equal(found.cls_prob, content["soft_labels"][:, 1:])
    assert found.cls_prob.dtype == np.float32
    assert np.array_equal(found.extra["norm_bb"], content["norm_bb"])
    assert found.extra["image_id"] == 9


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"features": None}, "features is no array of numbers"),
        ({"features": np.zeros(3)}, "not \\(N, D\\)"),
        ({"conf": np.array(["a"] * 5)}, "could not convert"),
        ({"conf": np.zeros((5, 2))}, r"confidence of shape \(10,\) with 5 features"),
        ({"soft_labels": np.zeros(5)}, "is damaged"),
        ({"soft_labels": np.zeros((4, 10))}, r"cls_prob of shape \(4, 9\) with 5 features"),
    ],
)
def test_what_fits_no_image(tmp_path, changes, reason):
    file = write(tmp_path, "a", support.some_regions())
    with np.load(file) as content:
        values = {**content, **changes}
    np.savez(file, **{key: value for key, value in values.items() if value is not None})
    with pytest.raises(StoreError, match=reason) as caught:
        UniterReader(tmp_path).read("a")
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)
