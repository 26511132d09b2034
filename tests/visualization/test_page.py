"""The HTML page: what is in it, that it needs nothing else, and how it behaves in a browser."""

import base64
import functools
import io
import json
import os
import re

import numpy as np
import pytest
import support
from html_page import Parser, browse, in_browser
from PIL import Image

from reference.goldens import DEMO
from vmb_d2.data.preprocessing import read_image
from vmb_d2.errors import ImageReadError, OutputError
from vmb_d2.visualization.boxes import ShownBox
from vmb_d2.visualization.page import open_page

NASTY = "</script><!--<script>\"'&\u2028\u86cb\udcff"  # the last: a file's name need not be text
SHOWN = NASTY.replace("\udcff", r"\udcff")


def box(corners, label="cup", confidence=0.9, likeliest=(), stored=None):
    corners = tuple(map(float, corners))
    return ShownBox(stored or corners, corners, label, confidence, tuple(likeliest), (255, 0, 128))


def write(path, *images, title="Regions", min_confidence=0.2):
    """A page of (name, rgb, boxes, boxes stored)."""
    with open_page(path, title, min_confidence) as page:
        for image in images:
            page.add(*image)
    return path


def blank(height, width):
    return np.full((height, width, 3), 128, dtype=np.uint8)


def test_the_data_is_there(tmp_path):
    likeliest = [("cup", 0.9), ("mug", 0.05)]
    boxes = [box((10, 20, 30, 40), likeliest=likeliest, stored=(10.0, 20.0, 30.04, 40.0))]
    page = Parser(write(tmp_path / "x.html", ("a/b", blank(100, 200), boxes, 7)))
    assert page.images() == [
        {
            "name": "a/b",
            "width": 200,
            "height": 100,
            "stored": 7,
            "boxes": [
                {
                    "place": [10, 20, 21, 21],  # the last column and row belong to the box
                    "stored": [10, 20, 30, 40],
                    "label": "cup",
                    "text": "cup 0.90",
                    "confidence": 0.9,
                    "likeliest": [["cup", 0.9], ["mug", 0.05]],
                    "color": "#ff0080",
                }
            ],
        }
    ]
    (settings,) = page.texts("script", "settings")
    assert json.loads(settings) == {"min_confidence": 0.2}


def test_the_image_is_in_it_at_a_sane_size(tmp_path):
    images = [("small", blank(90, 60), [], 0), ("wide", blank(30, 3000), [], 0)]
    images.append(("photo", read_image(DEMO / "coffee.png"), [], 0))
    page = Parser(write(tmp_path / "x.html", *images))
    found = [
        Image.open(io.BytesIO(base64.b64decode(text, validate=True)))
        for text in page.texts("script", "jpeg")
    ]
    assert [(image.format, image.size) for image in found] == [
        ("JPEG", (60, 90)),
        ("JPEG", (1000, 10)),
        ("JPEG", (600, 400)),
    ]
    difference = np.array(found[2]).astype(int) - images[2][1]
    assert np.abs(difference).mean() < 4
    assert [image["width"] for image in page.images()] == [60, 3000, 600]


def test_it_refers_to_nothing_outside(tmp_path):
    path = write(tmp_path / "x.html", ("a", blank(9, 9), [box((0, 0, 5, 5))], 1))
    page = Parser(path)
    assert not {"link", "base", "iframe", "object", "embed", "img"} & {tag for tag, _ in page.tags}
    for _, attributes in page.tags:
        assert not {"src", "href", "srcset", "action", "data", "poster"} & set(attributes)
    policies = [a["content"] for _, a in page.tags if a.get("http-equiv")]
    assert len(policies) == 1
    assert policies[0].startswith("default-src 'none'; img-src data:;")


def test_all_text_is_escaped(tmp_path):
    boxes = [box((0, 0, 5, 5), label=SHOWN, likeliest=[(SHOWN, 0.9)])]
    path = write(tmp_path / "x.html", (NASTY, blank(9, 9), boxes, 1), title=NASTY)
    harmless = write(
        tmp_path / "y.html", ("a", blank(9, 9), [box((0, 0, 5, 5), likeliest=[("a", 0.9)])], 1)
    )
    page = Parser(path)
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in Parser(harmless).tags]
    (image,) = page.images()
    assert image["name"] == image["boxes"][0]["label"] == image["boxes"][0]["likeliest"][0][0]
    assert image["name"] == SHOWN
    assert path.read_bytes().isascii()
    assert page.texts("title") == [SHOWN] == page.texts("h1")


def test_a_page_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "x.html"
    with pytest.raises(ImageReadError), open_page(path, "t", 0.2) as page:
        page.add("a", blank(9, 9), [], 0)
        assert not path.exists()
        raise ImageReadError("x")
    assert os.listdir(tmp_path) == []


def test_no_room_for_the_page(tmp_path):
    with (
        support.file_size_limit(20_000),
        pytest.raises(OutputError, match=r"x\.html: can't be written: File too large"),
    ):
        write(tmp_path / "x.html", ("a", read_image(DEMO / "coffee.png"), [], 0))
    assert os.listdir(tmp_path) == []


def test_only_a_page_is_overwritten(tmp_path):
    path = tmp_path / "x.html"
    path.write_text("<p>mine</p>")
    with pytest.raises(OutputError, match=r"x\.html would be overwritten"):
        write(path)
    assert path.read_text() == "<p>mine</p>"
    path.unlink()
    write(path, ("a", blank(9, 9), [], 0))
    write(path, ("b", blank(9, 9), [], 0))
    assert [image["name"] for image in Parser(path).images()] == ["b"]


# In a browser


@functools.cache
def sample():
    """A page of two images; the first has a small box within a large one."""
    folder = support.scratch() / "page"
    folder.mkdir()
    likeliest = [("cup", 0.9), ("<b>mug</b>", 0.06), ("bowl", 0.02), ("pan", 0.01), ("jar", 0.01)]
    boxes = [
        box((100, 100, 399, 299), "cup", 0.9, likeliest),
        box((0, 0, 599, 399), "table", 0.5, [("table", 0.5)]),
        box((200, 150, 250, 200), "<i>spoon</i>", 0.3),
        box((300, 10, 330, 20), None, None),
    ]
    images = [
        ("tables/coffee", read_image(DEMO / "coffee.png"), boxes, 100),
        ("Cats/<chelsea>", read_image(DEMO / "chelsea.png"), [box((9, 9, 99, 99))], 1),
        ("empty", blank(50, 50), [], 0),
    ]
    return write(folder / "index.html", *images, title="<Regions>", min_confidence=0.4)


@in_browser
def test_at_first_the_first_image_at_the_confidence_given():
    dom = browse(sample())
    assert dom["name"]["text"] == "tables/coffee"
    assert dom["min-shown"]["text"] == "0.40"
    assert dom.shown("label") == ["cup 0.90", "table 0.50", None]
    assert dom["count"]["text"] == "3 of 4 boxes (the most confident of 100 stored)"
    assert dom["found"]["text"] == "3 of 3 images"
    names = [e["text"] for e in dom.elements if e["tag"] == "button"]
    assert names == ["tables/coffee", "Cats/<chelsea>", "empty"]
    current = [e["aria-current"] for e in dom.elements if e["tag"] == "button"]
    assert current == ["true", "false", "false"]
    picture = next(e for e in dom.elements if e["tag"] == "img")
    assert picture["src"].startswith("data:image/jpeg;base64,/9j/")
    assert [e["text"] for e in dom.elements if e["tag"] == "h1"] == ["<Regions>"]
    assert not [e for e in dom.elements if e["tag"] in ("i", "b") and "spoon" in e["text"]]


@in_browser
@pytest.mark.parametrize(
    ("fragment", "labels"),
    [("#min=0.5", ["cup", "table"]), ("#min=0&labels=0", ["cup", "table", "<i>spoon</i>"])],
)
def test_the_address_filters(fragment, labels):
    dom = browse(sample(), fragment)
    shown = [text.rsplit(" ", 1)[0] for text in dom.shown("label") if text]
    assert shown == labels
    outlines = [text.rsplit(";")[0].rsplit(" ", 1)[0] for text in dom.shown("box")]
    assert outlines == [*labels, "box"]  # the last has no confidence that could be too low
    assert dom["count"]["text"].startswith(f"{len(labels) + 1} of 4 boxes")
    assert ("unlabelled" in dom["stage"].get("class", "")) == ("labels=0" in fragment)


@in_browser
def test_the_slider_filters_and_the_address_follows():
    script = """
        const slider = document.getElementById("min");
        slider.value = 0.6;
        slider.dispatchEvent(new Event("input"));
        slider.dispatchEvent(new Event("change"));
        document.getElementById("search").value = " cAT ";
        document.getElementById("search").dispatchEvent(new Event("input"));
        document.title = location.hash;
    """
    dom = browse(sample(), "", script)
    assert [text for text in dom.shown("label") if text] == ["cup 0.90"]
    assert dom["min-shown"]["text"] == "0.60"
    title = next(e["text"] for e in dom.elements if e["tag"] == "title")
    assert title == "#image=tables%2Fcoffee&min=0.6"
    assert dom["found"]["text"] == "1 of 3 images"
    assert [e["text"] for e in dom.elements if e["tag"] == "li" and "hidden" not in e] == [
        "Cats/<chelsea>"
    ]


def pointer(x, y):
    """Move the pointer over the first image, in its pixels."""
    return f"""
        const area = document.getElementById("stage").getBoundingClientRect();
        document.getElementById("stage").dispatchEvent(new PointerEvent("pointermove", {{
          clientX: area.left + {x} / 600 * area.width,
          clientY: area.top + {y} / 400 * area.height}}));
    """


@in_browser
@pytest.mark.parametrize(
    "script",
    [pointer(150, 120), "document.querySelector('.box').focus();"],
    ids=["pointer", "keyboard"],
)
def test_a_box_shows_its_classes(script):
    dom = browse(sample(), "#min=0", script)
    assert dom["label"]["text"] == "cup 0.90"
    assert dom["about"]["text"] == "x1, y1, x2, y2: 100, 100, 399, 299"
    rows = [e["text"] for e in dom.elements if e["tag"] == "li"][3:]  # after the list of images
    assert rows == ["cup0.900", "<b>mug</b>0.060", "bowl0.020", "pan0.010", "jar0.010"]
    bars = [e["style"] for e in dom.elements if e["tag"] == "i"]
    assert [float(re.search(r"width: ([\d.]+)%", bar)[1]) for bar in bars] == [90, 6, 2, 1, 1]
    assert dom.shown("active")[1] == "cup 0.90"


@in_browser
@pytest.mark.parametrize(("least", "label"), [(0, "<i>spoon</i> 0.30"), (0.4, "cup 0.90")])
def test_the_smallest_box_under_the_pointer_that_is_not_hidden(least, label):
    assert browse(sample(), f"#min={least}", pointer(225, 175))["label"]["text"] == label


@in_browser
def test_boxes_lie_where_they_should():
    script = """
        const stage = document.getElementById("stage").getBoundingClientRect();
        document.title = Array.from(document.querySelectorAll(".box"), (element) => {
          const area = element.getBoundingClientRect();
          return [area.left - stage.left, area.top - stage.top, area.width, area.height]
            .map((value) => (value * 600 / stage.width).toFixed(1)).join(" ");
        }).join();
    """
    dom = browse(sample(), "#min=0", script)
    title = next(e["text"] for e in dom.elements if e["tag"] == "title")
    found = [[float(value) for value in row.split()] for row in title.split(",")]
    expected = [[100, 100, 300, 200], [0, 0, 600, 400], [200, 150, 51, 51], [300, 10, 31, 11]]
    np.testing.assert_allclose(found, expected, atol=0.2)


@in_browser
def test_other_images_by_the_list_and_by_the_address(tmp_path):
    dom = browse(sample(), "", "document.querySelectorAll('nav button')[1].click();")
    assert dom["name"]["text"] == "Cats/<chelsea>"
    assert dom["count"]["text"] == "1 of 1 boxes"
    dom = browse(sample(), "#image=empty&min=nonsense")
    assert dom["name"]["text"] == "empty"
    assert dom["count"]["text"] == "0 of 0 boxes"
    assert dom["min-shown"]["text"] == "0.40"
    dom = browse(write(tmp_path / "x.html"))
    assert dom["name"]["text"] == "No images"
    assert dom["found"]["text"] == "0 of 0 images"
