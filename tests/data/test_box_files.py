"""The files of other programs, and stores, as given boxes: what they mean, and their features."""

import contextlib
import json
import os

import numpy as np
import pytest
import support
import torch
from box_sources import (
    BOXES,
    HEIGHT,
    IMAGES,
    WIDTH,
    as_array,
    coco,
    imdb,
    in_store,
    save_objects,
    stored,
    vilbert,
    written,
)

from vmb_d2.data import box_files
from vmb_d2.data.given_boxes import GivenBoxes
from vmb_d2.data.image_list import name_images
from vmb_d2.errors import BoxesError, ConfigError
from vmb_d2.stores import FORMATS
from vmb_d2.structures.input_image import InputImage

STORES = [name for name in FORMATS if name != "uniter"]  # which has no boxes in pixels
PLAIN = ["boxes.json", "records.json", "boxes.jsonl", "boxes.npz", "boxes.npy"]
KINDS = [*PLAIN, "imdb", "coco", "ground_truth", *STORES]


@pytest.mark.parametrize("kind", KINDS)
def test_the_boxes_are_those_that_were_written(tmp_path, kind):
    path = written(tmp_path, kind, BOXES)
    boxes = GivenBoxes.read(path)
    assert boxes.assign(IMAGES, "in") == (0, 0)
    for name, expected in (stored(path) if kind in FORMATS else BOXES).items():
        found = boxes.of(name, WIDTH, HEIGHT)
        np.testing.assert_allclose(found, as_array(expected), atol=1e-5)
        assert found.dtype == torch.float32
        assert found.shape == (len(expected), 4)
    assert boxes.mean_count() == 1


@pytest.mark.parametrize(
    ("kind", "options", "expected"),
    [
        ("imdb", {"normalized": False}, r"^normalized=false: .*imdb\.npy is an imdb of M4C, with"),
        ("coco", {"box_format": "xyxy"}, r"^boxes_format=xyxy: .* is COCO's annotations, with"),
        ("coco", {"inclusive": True}, r"^inclusive=true: not with boxes_format=xywh"),
        ("ground_truth", {"box_format": "xywh"}, r"is ViLBERT's ground truth, with boxes_format=x"),
        ("mmf", {"inclusive": False}, r"^inclusive=false: .* is a store, with inclusive=true"),
        ("lmdb", {"normalized": True}, r"^normalized=true"),
    ],
)
def test_options_that_contradict_the_file(tmp_path, kind, options, expected):
    path = written(tmp_path, kind, BOXES)
    with pytest.raises(ConfigError, match=expected) as caught:
        GivenBoxes.read(path, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "wrong", "looks"),
    [
        ("imdb", [[1, 2, 300, 400]], "xyxy in pixels, unlike an imdb of M4C"),
        ("ground_truth", [[300, 200, 50, 40]], "xywh in pixels, unlike ViLBERT's ground truth"),
        ("coco", [[400, 300, 600, 450]], "xyxy in pixels, unlike COCO's annotations"),
    ],
)
def test_a_file_with_boxes_of_another_kind(tmp_path, caplog, kind, wrong, looks):
    """Whose options would be refused, so they aren't advised."""
    path = written(tmp_path, kind, {"a": wrong}, size=(1, 1))
    if kind == "coco":
        content = json.loads(path.read_text())
        content["annotations"][0]["bbox"] = wrong[0]
        path.write_text(json.dumps(content))
    boxes = GivenBoxes.read(path)
    boxes.assign(IMAGES)
    with contextlib.suppress(BoxesError):
        boxes.of("a", WIDTH, HEIGHT)
    (record,) = [r for r in caplog.records if r.levelname == "WARNING"]
    assert record.getMessage().endswith(f"; they look like {looks}: mend the file")


@pytest.mark.parametrize("kind", ["imdb", "ground_truth"])
def test_what_the_file_leaves_open_is_up_to_the_user(tmp_path, kind):
    boxes = GivenBoxes.read(written(tmp_path, kind, BOXES), inclusive=False, box_format="xyxy")
    expected = as_array(BOXES["c"]) - [0, 0, 1, 1]
    boxes.assign(IMAGES)
    np.testing.assert_allclose(boxes.of("c", WIDTH, HEIGHT), expected, atol=1e-5)


def assigned(path, *paths, folder="in", naming="relative"):
    images = name_images([f"in/{p}" for p in paths], naming, folder)
    boxes = GivenBoxes.read(path)
    counts = boxes.assign(images, folder)
    return counts, [boxes.of(i.name, WIDTH, HEIGHT)[:, 0].round().tolist() for i in images]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("feature_path", "x.npy"),
        ("feature_path", "train/x.npy"),
        ("image_id", "x"),
        ("image_path", "train/x"),
        ("image_path", "train/x.jpg"),
        ("image_name", "x"),
    ],
)
@pytest.mark.parametrize("image", ["x.jpg", "train/x.png", "train/x.jpg"])
def test_what_names_an_image_in_an_imdb(tmp_path, key, value, image):
    entries = [{}, {key: value, "ocr_normalized_boxes": [[0.5, 0, 0.5, 1]]}]
    path = save_objects(tmp_path / "imdb.npy", entries)
    assert assigned(path, image, "other.jpg") == ((1, 0), [[320], []])


def test_an_image_of_an_imdb_with_different_boxes(tmp_path):
    entries = imdb({"a": BOXES["a"]}) + imdb({"a": BOXES["c"]})[1:]
    with pytest.raises(BoxesError, match=r"imdb\.npy: image train/a occurs twice, with different"):
        GivenBoxes.read(save_objects(tmp_path / "imdb.npy", entries))


def test_ids_of_coco(tmp_path):
    """Whichever of COCO's two ways to name a file the image and the annotations have."""
    content = coco({"x": [[1, 0, 5, 5]], "y": [[2, 0, 5, 5]], "z": [[3, 0, 5, 5]]})
    names = {7: "000000000007.jpg", 8: "COCO_val2014_000000000008.jpg", 9: "elsewhere/z.jpg"}
    for image in content["images"]:
        image["file_name"] = names[image["id"]]
    (tmp_path / "x.json").write_text(json.dumps(content))
    images = ("COCO_val2014_000000000007.jpg", "8.png", "z.png", "photo_7.jpg")
    assert assigned(tmp_path / "x.json", *images) == ((1, 0), [[1], [2], [3], []])
    for image in content["images"]:
        del image["file_name"]
    (tmp_path / "x.json").write_text(json.dumps(content))
    images = ("000000000007.jpg", "8.png")
    assert assigned(tmp_path / "x.json", *images) == ((0, 1), [[1], [2]])


def test_a_file_name_goes_before_an_id(tmp_path):
    content = coco({"8": [[1, 0, 5, 5]], "7": [[2, 0, 5, 5]], "x": [[3, 0, 5, 5]]})
    (tmp_path / "x.json").write_text(json.dumps(content))  # 8.jpg has the id 7, 7.jpg 8, x.jpg 9
    assert assigned(tmp_path / "x.json", "7.jpg", "8.png") == ((0, 1), [[2], [1]])
    assert assigned(tmp_path / "x.json", "9.jpg") == ((0, 2), [[3]])


def test_names_that_could_mean_several(tmp_path):
    entries = vilbert({"x": BOXES["a"], "y": BOXES["c"]})
    for folder, entry in zip("ab", entries, strict=True):
        entry |= {"file_path": f"/{folder}/x.jpg", "file_name": "x.jpg"}
    path = save_objects(tmp_path / "gt.npy", entries)
    with pytest.raises(BoxesError, match=r"several entries that can mean in/x\.jpg"):
        assigned(path, "x.jpg")
    boxes = GivenBoxes.read(path)
    assert boxes.assign([InputImage("/b/x.jpg", "x")]) == (0, 1)
    assert boxes.of("x", WIDTH, HEIGHT).tolist() == BOXES["c"]
    entries[1] |= {"file_path": "x.jpg"}  # as it is called in the run, not only at the end of it
    assert assigned(save_objects(path, entries), "x.jpg") == ((0, 1), [[5]])


BROKEN = [
    ([{}, {"image_id": "a"}, {"ocr_normalized_boxes": []}], r"entry 1: .* ocr_normalized_boxes"),
    ([{}, {"ocr_normalized_boxes": []}], "entry 1: has none of image_path, file_path"),
    ([{"image_id": 3, "ocr_normalized_boxes": [[1, 2]]}], r"image 3: boxes are of shape"),
    ([1, {"file_name": "a", "bbox": []}], r"entry 0: .* bbox"),
    ([{"question": "?"}], r"entry 0: .* image"),
    ({"images": [{"id": 1}], "annotations": [{"caption": "a"}]}, r"entry 0: .* image_id"),
    ({"images": [{"file_name": "a"}], "annotations": []}, r"images, entry 0: .* id"),
    ({"images": [{"id": 1}], "annotations": [{"image_id": [], "bbox": []}]}, "list"),
]


@pytest.mark.parametrize(("content", "expected"), BROKEN)
def test_broken_files_of_other_programs(tmp_path, content, expected):
    path = tmp_path / "x.json"
    path.write_text(json.dumps(content))
    with pytest.raises(BoxesError, match=expected) as caught:
        GivenBoxes.read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nothing_in_a_file_gets_run(tmp_path):
    evil = support.Runs(str(tmp_path / "made"))
    with pytest.raises(BoxesError, match=r"asks for posix\.mkdir"):
        GivenBoxes.read(save_objects(tmp_path / "x.npy", [*imdb(BOXES), evil]))
    assert not os.path.exists(evil.path)


def settings(path):
    return GivenBoxes.read(path).settings()


def test_what_tells_stores_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(box_files, "SAMPLE", 10)
    many = {f"x{i:03}": [[i, i, 50, 60]] for i in range(25)}
    one = settings(written(tmp_path, "mmf", many))
    assert one == settings(written(tmp_path, "lmdb", many))  # the same images and boxes
    assert (
        one["sha256"]
        != settings(in_store(tmp_path / "fewer", dict([*many.items()][:-1])))["sha256"]
    )
    other = {name: [[1, 2, 3, 4]] for name in many}
    assert one["sha256"] != settings(in_store(tmp_path / "other", other))["sha256"]


def test_a_damaged_image_of_a_store_is_a_failure_of_that_image(tmp_path):
    path = in_store(tmp_path / "in", BOXES)
    (path / "a.npy").write_bytes(b"half")
    boxes = GivenBoxes.read(path)
    boxes.assign(IMAGES)
    assert boxes.of("c", WIDTH, HEIGHT).tolist() == BOXES["c"]
    with pytest.raises(BoxesError, match=r"a\.npy"):
        boxes.of("a", WIDTH, HEIGHT)


def test_stores_that_are_none(tmp_path):
    writer = FORMATS["mmf"].writer(tmp_path / "without")
    writer.write("a", support.some_regions(bbox=None))
    writer.close()
    for path in (tmp_path / "without", written(tmp_path, "uniter", BOXES)):
        with pytest.raises(BoxesError, match=r"has no boxes of [ac]"):
            GivenBoxes.read(path)
    (tmp_path / "empty").mkdir()
    for name, reason in [("empty", "no store"), ("none", "No such file"), ("x.csv", "No such")]:
        with pytest.raises(ConfigError, match=rf"{name}: valid are \.json.* stores .*{reason}"):
            GivenBoxes.read(tmp_path / name)
