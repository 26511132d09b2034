"""ViLBERT's LMDB: what its loaders make of it, and LMDBs that others wrote."""

import base64

import numpy as np
import pytest
import store_files
import support
from store_files import foreign_lmdb as foreign
from store_files import kinds_of

from vmb_d2.errors import StoreError
from vmb_d2.output.open_stores import open_reader
from vmb_d2.stores.lmdb_store import ViLBERTReader


@pytest.fixture
def regions():
    return support.some_regions(dimension=2048)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "vilbert.lmdb"


def write(path, images, kind="vilbert"):
    path.parent.mkdir(exist_ok=True)
    return store_files.write(path, kind, images)


def encoded(array):
    return base64.b64encode(array)


def item_of(regions, layout, **changes):
    """An item as other programs write it."""
    of = {
        "arrays": lambda array: array,
        "flat": np.ravel,
        "base64": encoded,
        "base64 text": lambda array: encoded(array).decode(),
    }[layout]
    return {
        "image_id": 42,
        "image_h": np.int64(427),
        "image_w": "640",
        "num_boxes": 3,  # those that are confident, in some
        "boxes": of(regions.bbox),
        "features": of(regions.features),
        **changes,
    }


@pytest.mark.parametrize("layout", ["arrays", "flat", "base64", "base64 text"])
@pytest.mark.parametrize("count", [0, 1, 5])
def test_files_of_other_programs(path, layout, count):
    regions = support.some_regions(count=count)
    probabilities = item_of(regions, layout)["features"]
    foreign(
        path, {"42": item_of(regions, layout, cls_prob=probabilities, tag="x"), "keys": [b"42"]}
    )
    with open_reader(path) as reader:
        assert type(reader) is ViLBERTReader
        found = reader.read("42")
    rows = regions.features if count or layout == "arrays" else np.zeros((0, 0), np.float32)
    assert np.array_equal(found.features, rows)
    assert found.features.dtype == found.bbox.dtype == np.float32
    assert np.array_equal(found.bbox, regions.bbox)
    assert np.array_equal(found.cls_prob, rows)
    assert (found.image_width, found.image_height, found.num_boxes) == (640, 427, 3)
    assert (found.objects, found.extra) == (None, {"tag": "x"})


def test_without_boxes_their_number_tells_how_many_regions_there_are(path, regions):
    item = item_of(regions, "base64", num_boxes=5)
    del item["boxes"]
    foreign(path, {"7": item})
    with open_reader(path) as reader:
        found = reader.read("7")
    assert np.array_equal(found.features, regions.features)
    assert (found.bbox, found.extra) == (None, {"image_id": 42})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"features": "no base64!"}, "is damaged"),
        ({"features": encoded(np.zeros(7, np.float32))}, "is damaged"),
        ({"image_h": "high"}, "image_height is no number"),
        ({"features": support.Runs("/no/such/folder")}, r"posix\.mkdir"),
    ],
)
def test_items_that_are_no_images(path, regions, changes, reason):
    foreign(path, {"42": item_of(regions, "arrays", **changes)})
    with ViLBERTReader(path) as reader, pytest.raises(StoreError, match=f"'42': .*{reason}"):
        reader.read("42")


def test_told_apart_from_mmfs_by_the_first_image(tmp_path, regions):
    for kind in ("lmdb", "vilbert"):
        for place in ("features.lmdb", "vilbert.lmdb", "any.name"):
            store = write(tmp_path / kind / place, {"a": regions}, kind)
            assert kinds_of(store) == kinds_of(store / "data.mdb") == [kind]
    bare = support.some_regions(bbox=None, image_width=None, image_height=None)
    assert kinds_of(write(tmp_path / "bare", {"a": bare})) == ["vilbert"]
    foreign(tmp_path / "alone", {"a": {"features": regions.features}})
    assert kinds_of(tmp_path / "alone") == ["lmdb"]


def test_the_place_tells_where_no_image_does(tmp_path, regions):
    for place, kind in (("vilbert.lmdb", "vilbert"), ("other.lmdb", "lmdb")):
        write(tmp_path / place, {})
        assert kinds_of(tmp_path / place) == [kind]
        (tmp_path / f"damaged{kind}").mkdir()
        foreign(tmp_path / f"damaged{kind}" / place, {"a": b"no pickle"})
        assert kinds_of(tmp_path / f"damaged{kind}" / place) == [kind]
