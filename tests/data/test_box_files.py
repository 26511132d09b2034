"""The files of other programs, and stores, as given boxes: what they mean, and their features."""

import contextlib
import json
import os

import numpy as np
import pytest
import support
from PIL import Image
from support import TINY_FPN

from reference import goldens
from vmb_d2.data import box_files
from vmb_d2.data.given_boxes import GivenBoxes
from vmb_d2.data.image_list import list_images, name_images
from vmb_d2.engine.job import ExtractionJob
from vmb_d2.errors import BoxesError, ConfigError
from vmb_d2.extractor import RegionFeatureExtractor
from vmb_d2.output.open_stores import open_reader
from vmb_d2.stores import FORMATS
from vmb_d2.structures.input_image import InputImage

# Inclusive, in pixels of an image of 640 x 480, by image.
BOXES = {"a": [[0, 1, 9, 20], [100, 2, 399, 470]], "b": [], "c": [[5, 6, 7, 8]]}
IMAGES = [InputImage(f"in/{name}.jpg", name) for name in BOXES]
WIDTH, HEIGHT = 640, 480


def as_array(values):
    return np.array(values, np.float32).reshape(-1, 4)


def save_objects(path, values):
    array = np.empty(len(values), dtype=object)
    array[:] = values
    np.save(path, array)
    return path


def imdb(boxes, size=(WIDTH, HEIGHT), **more):
    """As M4C's: a header, then two questions of each image, with NumPy's own strings in between."""
    entries = [{"creator": "x", "version": 0.4, "dataset_type": "train", "has_answer": True}]
    for question in range(2):
        for name, values in boxes.items():
            entries.append(
                {
                    "question_id": question,
                    "image_id": np.str_(name),
                    "image_path": f"train/{name}",
                    "feature_path": f"{name}.npy",
                    "image_width": size[0],
                    "image_height": size[1],
                    "ocr_tokens": ["word"] * len(values),
                    "ocr_info": [{"word": "word", "bounding_box": {"rotation": 0.0}}],
                    "ocr_normalized_boxes": np.reshape(values, (-1, 4)) / [*size, *size],
                    "obj_normalized_boxes": np.zeros((3, 4), np.float32),
                    **more,
                }
            )
    return entries


def coco(boxes):
    """As COCO's instances: annotations of all images in any order, ids of its own."""
    images = [
        {"id": 7 + i, "file_name": f"{name}.jpg", "width": WIDTH, "height": HEIGHT}
        for i, name in enumerate(boxes)
    ]
    flat = [
        (image["id"], row, box)
        for image, values in zip(images, boxes.values(), strict=True)
        for row, box in enumerate(values)
    ]
    annotations = [
        {
            "id": 900 - i,
            "image_id": image_id,
            "bbox": [x1, y1, x2 - x1 + 1, y2 - y1 + 1],
            "iscrowd": row % 2,
            "category_id": 1,
            "segmentation": [[1, 2, 3, 4, 5, 6]],
        }
        for i, (image_id, row, (x1, y1, x2, y2)) in enumerate(sorted(flat, key=lambda x: x[1]))
    ]
    return {"info": {}, "licenses": [], "images": images, "annotations": annotations}


def vilbert(boxes):
    return [
        {
            "file_name": f"{name}.jpg",
            "file_path": f"/far/away/{name}.jpg",
            "bbox": as_array(values),
            "num_box": len(values),
        }
        for name, values in boxes.items()
    ]


def in_store(path, boxes, format_name="mmf"):
    writer = FORMATS[format_name].writer(path)
    for i, (name, values) in enumerate(boxes.items()):
        writer.write(name, support.some_regions(i, len(values), bbox=as_array(values)))
    writer.close()
    return path


def lines(path, boxes):
    path.write_text("".join(json.dumps({"image": k, "boxes": v}) + "\n" for k, v in boxes.items()))
    return path


def written(folder, kind, boxes, size=(WIDTH, HEIGHT)):
    if kind == "imdb":
        return save_objects(folder / "imdb.npy", imdb(boxes, size))
    if kind == "coco":
        (folder / "instances.json").write_text(json.dumps(coco(boxes)))
        return folder / "instances.json"
    if kind == "ground_truth":
        return save_objects(folder / "gt.npy", vilbert(boxes))
    place = folder / f"stored_{kind}" / FORMATS[kind].place
    place.parent.mkdir(parents=True, exist_ok=True)
    return in_store(place, boxes, kind)


def stored(path):
    """The boxes of a store, as its own reader gives them."""
    with open_reader(path) as reader:
        return {name: reader.read(name).bbox for name in reader.names()}


STORES = [name for name in FORMATS if name != "uniter"]  # which has no boxes in pixels
KINDS = ["imdb", "coco", "ground_truth", *STORES]


@pytest.mark.parametrize("kind", KINDS)
def test_the_boxes_are_those_that_were_written(tmp_path, kind):
    path = written(tmp_path, kind, BOXES)
    boxes = GivenBoxes.read(path)
    assert boxes.assign(IMAGES, "in") == (0, 0)
    for name, expected in (stored(path) if kind in FORMATS else BOXES).items():
        found = boxes.of(name, WIDTH, HEIGHT)
        np.testing.assert_allclose(found, as_array(expected), atol=1e-5)
        assert found.shape == (len(expected), 4)
    assert boxes.mean_count() == 1


def test_a_store_without_boxes(tmp_path):
    with pytest.raises(BoxesError, match="has no boxes of"):
        GivenBoxes.read(written(tmp_path, "uniter", BOXES))


@pytest.fixture(scope="module")
def golden():
    ((path, _, image),) = goldens.find(rf"{TINY_FPN}\.seed0\.given_boxes\.")
    return image, np.load(path)["boxes"].tolist()


@pytest.mark.parametrize("kind", ["imdb", "coco", "ground_truth", "mmf"])
def test_the_features_are_those_of_the_same_boxes_in_lines(tmp_path, golden, kind):
    """The golden's boxes; test_extract_goldens.py compares the lines' features with the golden."""
    image, values = golden
    source = support.links(tmp_path / "in", image)
    images = name_images(list_images(source))
    with Image.open(images[0].path) as opened:
        path = written(tmp_path, kind, {images[0].name: values}, opened.size)
    if kind in FORMATS:
        values = stored(path)[images[0].name].tolist()
    found = {}
    for each in (lines(tmp_path / "boxes.jsonl", {images[0].name: values}), path):
        boxes = GivenBoxes.read(each)
        assert boxes.assign(images, source) == (0, 0)
        extractor = RegionFeatureExtractor(support.tiny_model(TINY_FPN))
        out = tmp_path / f"out_of_{each.name}"
        ExtractionJob(out, boxes=boxes).run(images, lambda e=extractor: e)
        with open_reader(out) as reader:
            found[each] = reader.read(images[0].name)
    assert len(found[path]) == len(values) > 3
    support.assert_same_regions(*found.values())


CONTRADICTIONS = [
    (
        "imdb",
        {"normalized": False},
        r"normalized=false: .*imdb\.npy is an imdb of M4C, with",
    ),
    ("imdb", {"box_format": "xywh"}, r"boxes_format=xywh: .*with boxes_format=xyxy; leave"),
    ("coco", {"box_format": "xyxy"}, r"boxes_format=xyxy: .* is COCO's annotations, with"),
    ("coco", {"normalized": True}, r"normalized=true: .*with normalized=false"),
    ("coco", {"inclusive": True}, r"inclusive=true: not with boxes_format=xywh"),
    ("ground_truth", {"box_format": "xywh"}, r"is ViLBERT's ground truth, with boxes_format=xyxy"),
    ("ground_truth", {"normalized": True}, r"normalized=true"),
    ("mmf", {"inclusive": False}, r"inclusive=false: .* is a store, with .*=true"),
    ("lmdb", {"normalized": True}, r"normalized=true"),
    ("hdf5", {"box_format": "xywh"}, r"boxes_format=xywh"),
]


@pytest.mark.parametrize(("kind", "options", "expected"), CONTRADICTIONS)
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
        ("feature_path", "x"),
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


def test_an_imdb_without_its_header(tmp_path):
    path = save_objects(tmp_path / "imdb.npy", imdb(BOXES)[1:])
    assert assigned(path, "a.jpg", "b.jpg", "c.jpg")[0] == (0, 0)


def test_an_image_of_an_imdb_with_different_boxes(tmp_path):
    entries = imdb({"a": BOXES["a"]}) + imdb({"a": BOXES["c"]})[1:]
    with pytest.raises(BoxesError, match=r"imdb\.npy: train/a: occurs with different boxes"):
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


def test_a_file_name_goes_before_an_id(tmp_path, caplog):
    caplog.set_level("INFO")
    content = coco({"8": [[1, 0, 5, 5]], "7": [[2, 0, 5, 5]], "x": [[3, 0, 5, 5]]})
    (tmp_path / "x.json").write_text(json.dumps(content))  # 8.jpg has the id 7, 7.jpg 8, x.jpg 9
    assert assigned(tmp_path / "x.json", "7.jpg", "8.png") == ((0, 1), [[2], [1]])
    assert "by their id" not in caplog.text
    assert assigned(tmp_path / "x.json", "9.jpg") == ((0, 2), [[3]])
    assert "x.json: 1 images found by their id" in caplog.text


def test_crowds_are_taken_and_said(tmp_path, caplog):
    caplog.set_level("INFO")
    GivenBoxes.read(written(tmp_path, "coco", BOXES))
    assert "instances.json: 1 of 3 boxes are of crowds (iscrowd); they are taken" in caplog.text


def test_annotations_of_images_that_are_not_among_them(tmp_path, caplog):
    content = coco(BOXES)
    del content["images"][0]
    (tmp_path / "x.json").write_text(json.dumps(content))
    assert assigned(tmp_path / "x.json", "b.jpg", "c.jpg") == ((0, 0), [[], [5]])
    assert "1 images with annotations are not among its images: left out" in caplog.text


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


BROKEN = {
    "x.npy": [
        ([{}, {"image_id": "a"}, {"ocr_normalized_boxes": []}], "entry 1: has no ocr_normalized"),
        ([{}, {"ocr_normalized_boxes": []}], "entry 1: has none of image_path, file_path"),
        ([{"image_id": 3, "ocr_normalized_boxes": [[1, 2]]}], r"entry 0: boxes are of shape"),
        ([{"file_name": "a", "bbox": [[1, 2, 3, 4]], "num_box": 2}], "num_box is 2, of 1 boxes"),
        ([{"file_name": "a"}, {"file_name": "a", "bbox": []}], "entry 0: has no bbox"),
        ([{"file_name": "a", "bbox": []}, 3], "entry 1: has no bbox"),
        ([{"question": "?"}], 'entry 1: is not {"image": name'),
        ([1, 2], "entry 1: is not"),
    ],
    "x.json": [
        ({"images": [{"id": 1}]}, "has images but no list of annotations"),
        ({"images": [{"id": 1}], "annotations": [{"caption": "a"}]}, "entry 0: has no image_id or"),
        ({"images": [{"file_name": "a"}], "annotations": []}, "images, entry 0: has no id"),
        ({"images": [{"id": 1}, {"id": 1}], "annotations": []}, "image 1 occurs twice"),
        (
            {"images": [{"id": 1}], "annotations": [{"image_id": 1, "bbox": [1, 2, 3]}]},
            r"image 1: boxes are of shape \(n, 4\), not \(1, 3\)",
        ),
        ({"images": [{"id": 1}], "annotations": [{"image_id": [], "bbox": []}]}, "list"),
    ],
}


@pytest.mark.parametrize(
    ("name", "content", "expected"), [(n, *case) for n, cases in BROKEN.items() for case in cases]
)
def test_broken_files_of_other_programs(tmp_path, name, content, expected):
    path = tmp_path / name
    if name.endswith("npy"):
        save_objects(path, content)
    else:
        path.write_text(json.dumps(content))
    with pytest.raises(BoxesError, match=expected) as caught:
        GivenBoxes.read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["imdb", "ground_truth"])
def test_nothing_in_a_file_gets_run(tmp_path, kind):
    entries = imdb(BOXES) if kind == "imdb" else vilbert(BOXES)
    evil = support.Runs(str(tmp_path / "made"))
    with pytest.raises(BoxesError, match=r"asks for posix\.mkdir"):
        GivenBoxes.read(save_objects(tmp_path / "x.npy", [*entries, evil]))
    assert not os.path.exists(evil.path)


def test_images_and_annotations_can_be_names_too(tmp_path):
    names = {"images": [[1, 2, 3, 4]], "annotations": []}
    (tmp_path / "x.json").write_text(json.dumps(names))
    boxes = GivenBoxes.read(tmp_path / "x.json")
    assert boxes.assign([InputImage("images.jpg", "images")]) == (0, 1)
    assert boxes.of("images", WIDTH, HEIGHT).tolist() == [[1, 2, 3, 4]]


def settings(path):
    return GivenBoxes.read(path).settings()


@pytest.mark.parametrize("kind", STORES)
def test_a_store_is_read_when_it_is_asked(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(box_files, "SAMPLE", 4)
    many = {f"x{i:02}": [[i, i, 50, 60]] * (1 + i % 2) for i in range(30)}
    path = written(tmp_path, kind, many)
    reader, reads = FORMATS[kind].reader, []
    read = reader.read
    monkeypatch.setattr(reader, "read", lambda self, name: reads.append(name) or read(self, name))
    boxes = GivenBoxes.read(path)
    images = [InputImage(f"in/{name}.jpg", name) for name in many]
    assert boxes.assign(images) == (0, 0)
    assert len(reads) == 4
    assert boxes.of("x09", WIDTH, HEIGHT).tolist() == many["x09"]
    assert boxes.of("none", WIDTH, HEIGHT).shape == (0, 4)
    assert reads[4:] == ["x09"]
    assert 1 <= boxes.mean_count() <= 2


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
    with pytest.raises(BoxesError, match="has no boxes of a"):
        GivenBoxes.read(tmp_path / "without")
    (tmp_path / "empty").mkdir()
    for name, reason in [("empty", "no store"), ("none", "No such file"), ("x.csv", "No such")]:
        with pytest.raises(ConfigError, match=rf"{name}: valid are \.json.* and stores .*{reason}"):
            GivenBoxes.read(tmp_path / name)


def test_an_empty_store(tmp_path):
    boxes = GivenBoxes.read(in_store(tmp_path / "x.lmdb", {}, "lmdb"))
    with pytest.raises(BoxesError, match="has no boxes of any of the images; it has nothing"):
        boxes.assign(IMAGES)
