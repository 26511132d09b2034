"""Reading given boxes, finding each image's, and what the coordinates mean."""

import contextlib
import json

import numpy as np
import pytest
import store_files
import support

from vmb_d2.data.given_boxes import GivenBoxes
from vmb_d2.data.image_list import name_images
from vmb_d2.errors import BoxesError, ConfigError
from vmb_d2.structures.input_image import InputImage


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("x.json", "", "Expecting value"),
        ("x.json", '{"a": [[1, 2, 3]]}', r"a: boxes are of shape \(n, 4\), not \(1, 3\)"),
        ("x.json", '{"a": [[1, 2], [3]]}', "a: boxes are lists of four numbers"),
        ("x.json", '{"a": [[1, 2, 3, NaN]]}', "is no number"),
        ("x.jsonl", '{"image": "a", "boxes": []}\n{"image": "b"}', r"line 2: .* boxes"),
        ("x.jsonl", '{"image": "a", "boxes": []}\n{"im', "line 2: "),
        (
            "x.json",
            '[{"image": "a", "boxes": []}, {"image": "a", "boxes": [[1, 2, 3, 4]]}]',
            "twice",
        ),
        ("x.jsonl", b"\xff\xfe", "codec"),
        ("x.npy", b"", "npy"),
        ("x.npz", b"PK", "."),
    ],
)
def test_files_that_are_none(tmp_path, name, content, expected):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(BoxesError, match=expected) as caught:
        GivenBoxes.read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_kinds_of_files(tmp_path):
    with pytest.raises(BoxesError, match="No such file"):
        GivenBoxes.read(tmp_path / "boxes.json")
    np.save(tmp_path / "array.npy", np.zeros((3, 4)))
    with pytest.raises(BoxesError, match="no dict"):
        GivenBoxes.read(tmp_path / "array.npy")
    with pytest.raises(ConfigError, match=r"boxes_format=yxyx: valid are xyxy, xywh"):
        GivenBoxes([], box_format="yxyx")
    with pytest.raises(ConfigError, match=r"inclusive=true: not with boxes_format=xywh"):
        GivenBoxes([], box_format="xywh", inclusive=True)


@pytest.mark.parametrize("key", ["in/sub/a.1.jpg", "sub/a.1.jpg", "sub/a.1", "a.1.jpg"])
def test_keys(key):
    images = name_images(["in/sub/a.1.jpg", "in/sub/b.jpg"], "relative", "in")
    boxes = GivenBoxes([(key, [[1, 2, 3, 4]]), ("elsewhere", [])])
    assert boxes.assign(images, "in") == (1, 1)
    assert boxes.of("sub/a.1", 9, 9).tolist() == [[1, 2, 3, 4]]
    assert boxes.of("sub/b", 9, 9).shape == (0, 4)


def test_keys_that_mean_no_image_or_two():
    images = name_images(["in/a/x.jpg", "in/b/x.jpg"], "relative", "in")
    with pytest.raises(BoxesError, match=r"x\.jpg stands for in/a/x\.jpg and for in/b/x\.jpg"):
        GivenBoxes([("x.jpg", [])]).assign(images, "in")
    with pytest.raises(BoxesError, match=r"no boxes of any of the images; it has y\.jpg, they"):
        GivenBoxes([("y.jpg", [])]).assign(images, "in")
    assert GivenBoxes([("y.jpg", [])]).assign([], "in") == (0, 1)


@pytest.mark.parametrize(
    ("options", "box", "expected"),
    [
        ({}, [10, 20, 29, 59], [10, 20, 29, 59]),
        ({"inclusive": False}, [10, 20, 30, 60], [10, 20, 29, 59]),
        ({"box_format": "xywh"}, [10, 20, 20, 40], [10, 20, 29, 59]),
        ({"box_format": "xywh", "inclusive": False}, [10, 20, 20, 40], [10, 20, 29, 59]),
        ({"normalized": True}, [0.1, 0.1, 0.5, 1], [20, 10, 100, 100]),
        ({"normalized": True, "inclusive": False}, [0.1, 0.1, 0.5, 1], [20, 10, 99, 99]),
        ({"normalized": True, "box_format": "xywh"}, [0.1, 0.1, 0.4, 0.9], [20, 10, 99, 99]),
        ({"inclusive": False}, [10, 20, 10, 20], [10, 20, 9, 19]),  # of no size
    ],
)
def test_what_the_coordinates_mean(options, box, expected):
    """Every expectation is the box in inclusive original pixels, of an image of 200 x 100."""
    boxes = GivenBoxes([("a", [box])], **options)
    assert boxes.of("a", 200, 100).tolist() == [pytest.approx(expected)]


@pytest.mark.parametrize("box", [[10, 10, 8.9, 20], [10, 10, 20, 5]])
def test_a_box_that_ends_before_it_begins(box):
    boxes = GivenBoxes([("a", [[0, 0, 1, 1], box])])
    with pytest.raises(BoxesError, match="a: box 1 ends before it begins"):
        boxes.of("a", 200, 100)


def test_settings_tell_boxes_apart():
    def settings(values=((1, 2, 3, 4),), key="a", **options):
        return json.dumps(GivenBoxes([(key, values)], **options).settings())

    others = [
        settings(((1, 2, 3, 5),)),
        settings(key="b"),
        settings(box_format="xywh"),
        settings(normalized=True),
        settings(inclusive=False),
    ]
    assert len({settings(), *others}) == 6


SIZE = (640, 480)
PIXELS = [[100, 50, 299, 249], [400, 300, 630, 470], [10, 20, 60, 70], [0, 0, 639, 479]]


def shares(boxes):
    return [[x / SIZE[i % 2] for i, x in enumerate(box)] for box in boxes]


def sides(boxes):
    return [[x1, y1, x2 - x1, y2 - y1] for x1, y1, x2, y2 in boxes]


def warnings_of(caplog, boxes, **options):
    """What a run over these images is told of: level and text."""
    caplog.clear()
    caplog.set_level("INFO")
    given = GivenBoxes(boxes.items(), "boxes.json", **options)
    given.assign([InputImage(f"in/{name}.jpg", name) for name in boxes])
    for name in boxes:
        with contextlib.suppress(BoxesError):
            given.of(name, *SIZE)
    given.log_outside()
    return [(record.levelname, record.getMessage()) for record in caplog.records]


NORMALIZED, XYWH = {"normalized": True}, {"box_format": "xywh"}
SHARES = "shares of the image's sides"


@pytest.mark.parametrize(
    ("true", "declared", "fits"),
    [
        (NORMALIZED, {}, f"xyxy in {SHARES}"),
        ({}, NORMALIZED, "xyxy in pixels"),
        (XYWH, {}, "xywh in pixels"),
        ({}, XYWH, "xyxy in pixels"),
        (NORMALIZED | XYWH, {}, f"xywh in {SHARES}"),
        (NORMALIZED, NORMALIZED | XYWH, f"xyxy in {SHARES}"),
    ],
)
def test_boxes_of_another_unit_or_order_than_declared(caplog, true, declared, fits):
    values = sides(PIXELS) if "box_format" in true else PIXELS
    values = shares(values) if "normalized" in true else values
    boxes = {name: values for name in ("a", "b", "c")}
    assert warnings_of(caplog, boxes, **true) == []
    found = warnings_of(caplog, boxes, **declared)
    assert [level for level, _ in found].count("WARNING") == 1
    assert found[0][0] == "WARNING"
    assert found[0][1].startswith("boxes.json: ")
    assert found[0][1].endswith(f"; they look like {fits}")


@pytest.mark.parametrize(
    ("boxes", "options"),
    [
        ([*shares(PIXELS), [0.9, 0.9, 1.04, 1.02]], NORMALIZED),  # as OCR's or VMB's own are
        ([*PIXELS, [0, 0, 660, 490], [-20, -10, 5, 5]], {}),
        ([*PIXELS, *PIXELS, [30, 30, 20, 20]], {}),  # one that ends before it begins
        ([[0, 0, 0, 9]], XYWH),  # of no size
        ([], {}),
    ],
)
def test_boxes_that_are_as_declared(caplog, boxes, options):
    assert warnings_of(caplog, {"a": boxes}, **options) == []


def test_one_of_many_that_ends_before_it_begins(caplog):
    boxes = {f"{i}": [[10, 10, 20, 20]] for i in range(9)} | {"a": [[300, 200, 50, 40]]}
    ((level, text),) = warnings_of(caplog, boxes)
    assert (level, text.split("; ")[-1]) == ("WARNING", "they look like xywh in pixels")
    assert "1 of 1 boxes of a end before they begin" in text


def test_boxes_of_images_of_another_size(caplog):
    boxes = {"a": PIXELS, "b": [[x * 4 for x in box] for box in PIXELS]}
    ((level, text), (count_level, count)) = warnings_of(caplog, boxes)
    assert (level, count_level) == ("WARNING", "INFO")
    assert text == (
        "boxes.json: 3 of 4 boxes of b end before they begin or reach far beyond the image, of 640 "
        "x 480 pixels; 1 are wholly outside; are they of images of another size?"
    )
    assert count == "boxes.json: 1 of 8 boxes lie wholly outside of their images, b"


@pytest.mark.parametrize(
    ("box", "outside"),
    [
        ([640, 10, 700, 20], True),
        ([639, 10, 700, 20], False),
        ([10, -20, 20, -0.5], True),
        ([-20, 10, 0, 20], False),
    ],
)
def test_boxes_wholly_outside_are_counted_in_one_warning(caplog, box, outside):
    boxes = {"a": [*PIXELS, box], "b": PIXELS, "c": [box, *PIXELS, box]}
    found = warnings_of(caplog, boxes)
    expected = "boxes.json: 3 of 15 boxes lie wholly outside of their images, a; c"
    assert found == ([("WARNING", expected)] if outside else [])


@pytest.mark.parametrize("inclusive", [None, True, False])
@pytest.mark.parametrize("by_default", [True, False])
def test_boxes_in_the_convention_of_the_model(inclusive, by_default):
    """The same boxes whether the model counts the last pixel or not."""
    given = GivenBoxes([("a", [[1, 2, 30.5, 40]])], inclusive=inclusive, by_default=by_default)
    given.assign([InputImage("a", "a")])
    last = by_default if inclusive is None else inclusive
    assert given.of("a", 50, 50).tolist() == [[1, 2, 30.5 - (not last), 40 - (not last)]]
    assert given.of("a", 50, 50, inclusive=False).tolist() == [[1, 2, 30.5 + last, 40 + last]]


@pytest.mark.parametrize("convention", ["frcnn_vg", "bua", None])
def test_boxes_of_a_store_go_by_its_models_convention(tmp_path, convention):
    regions = support.some_regions(count=1, bbox=np.array([[1, 2, 30, 39]], np.float32))
    store_files.write(tmp_path, "mmf", {"a": regions})
    if convention:
        content = {"settings": {"model": {"box_convention": convention}}, "runs": []}
        (tmp_path / "manifest.json").write_text(json.dumps(content))
    given = GivenBoxes.read(tmp_path)
    given.assign([InputImage("a.png", "a")])
    last = convention != "frcnn_vg"  # whether (x2, y2) is the last pixel
    assert given.of("a", 50, 50).tolist() == [[1, 2, 30 - (not last), 39 - (not last)]]
    assert given.of("a", 50, 50, inclusive=False).tolist() == [[1, 2, 30 + last, 39 + last]]
