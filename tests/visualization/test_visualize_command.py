"""tools/visualize.py: matching images with what is stored, and what becomes of each."""

import dataclasses
import json
import logging
import os
import shutil

import numpy as np
import pytest
import support
from html_page import Parser
from PIL import Image
from sharded import write_shards

from reference import goldens
from vmb_d2.errors import ImageReadError
from vmb_d2.output.manifest import Manifest
from vmb_d2.stores import FORMATS
from vmb_d2.visualization import ImageFiles
from vmb_d2.visualization.boxes import NEUTRAL, color_of

SIZE = {"image_width": 64, "image_height": 48}


@pytest.fixture
def run(monkeypatch, capsys, tmp_path, caplog):
    """Runs the program on tmp_path's features and images; gives its status and messages.

    Where the work could not be done, there is one message, that on stderr.
    """
    command = support.in_this_process(support.ROOT / "tools/visualize.py", monkeypatch, capsys)

    def run(*arguments, images="images", classes="none"):
        caplog.clear()
        paths = [tmp_path / "features", tmp_path / images, "--output", tmp_path / "drawn"]
        options = ["--cache-dir", tmp_path / "cache"]
        if classes:
            options += ["--classes", classes]
        with caplog.at_level(logging.INFO):
            status, _, err = command(*paths, *options, *arguments)
        messages = [r.getMessage() for r in caplog.records]
        return status, err.splitlines() if status == 2 else messages

    return run


def make(tmp_path, *names, images=None, format_name="mmf", **changes):
    """A store of regions under these names, and their images."""
    folder = tmp_path / "features"
    folder.mkdir(exist_ok=True)
    writer = FORMATS[format_name].writer(folder / FORMATS[format_name].place)
    for name in names:
        corners = {"bbox": np.array([[8, 9, 30, 40]] * 5, np.float32)}
        writer.write(name, support.some_regions(**{**SIZE, **corners, **changes}))
    writer.close()
    for name in images or [f"{name}.png" for name in names]:
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 48), (90, 90, 90)).save(path, "PNG")


def drawn(tmp_path):
    folder = tmp_path / "drawn"
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def in_page(tmp_path):
    return [image["name"] for image in Parser(tmp_path / "drawn" / "index.html").images()]


@pytest.mark.parametrize("format_name", FORMATS)
def test_every_format_is_drawn(tmp_path, run, format_name):
    make(tmp_path, "a", "sub/b", format_name=format_name)
    status, messages = run("--top", "1")
    if format_name == "uniter":  # has no boxes in pixels
        assert (status, messages[0]) == (1, "failed: a: no boxes are stored")
        return
    assert status == 0
    assert drawn(tmp_path) == ["a.png", "index.html", "sub/b.png"]
    assert sorted(in_page(tmp_path)) == ["a", "sub/b"]
    assert messages == [f"{tmp_path}/drawn: PNGs and index.html of 2 images; 0 missing, 0 failed"]
    image = np.array(Image.open(tmp_path / "drawn" / "a.png"))
    assert image.shape == (48, 64, 3)
    stored = support.some_regions()
    best = stored.objects[stored.objects_conf.argmax()]
    expected = NEUTRAL if "objects" not in FORMATS[format_name].writer.keeps else color_of(best)
    assert tuple(image[40, 30]) == expected


def test_shards_are_drawn(tmp_path, run):
    make(tmp_path, images=["a.png", "b.png", "sub/c.png"])
    regions = support.some_regions(**SIZE)
    write_shards(tmp_path / "features", "lmdb", [{"a": regions, "b": regions}, {"sub/c": regions}])
    assert run()[0] == 0
    assert in_page(tmp_path) == ["a", "b", "sub/c"]


def test_images_found_by_every_name_they_can_have(tmp_path):
    names = ["x.y.png", "UPPER.JPG", "sub/deep/z.jpeg", "other.txt", ".hidden.png"]
    make(tmp_path, images=names)
    files = ImageFiles(tmp_path / "images")
    found = {"x": "x.y.png", "x.y": "x.y.png", "x.y.png": "x.y.png", "UPPER": "UPPER.JPG"}
    found |= {"sub/deep/z": "sub/deep/z.jpeg", "sub/deep/z.jpeg": "sub/deep/z.jpeg"}
    for name, file in found.items():
        assert files.find(name) == tmp_path / "images" / file
    for name in ("z", "upper", "deep/z", "other", ".hidden", "../images/x", "", "sub"):
        assert files.find(name) is None


def test_an_earlier_kind_of_name_goes_first_and_twins_are_refused(tmp_path):
    make(tmp_path, images=["a.png", "a.b.png", "c.png", "c.jpg", "d.e.png", "d.f.png"])
    files = ImageFiles(tmp_path / "images")
    assert files.find("a") == tmp_path / "images" / "a.png"
    assert files.find("c.jpg") == tmp_path / "images" / "c.jpg"
    for name, twin in (("c", r"c\.jpg or .*c\.png"), ("d", r"d\.e\.png or .*d\.f\.png")):
        with pytest.raises(ImageReadError, match=f"it could be .*{twin}"):
            files.find(name)


def test_missing_and_unreadable_images_are_reported_and_the_rest_drawn(tmp_path, run):
    make(tmp_path, *"abcdefghijkl", images=[f"{name}.png" for name in "abcdefghijkl"])
    for name in "bdfhjkl":
        (tmp_path / "images" / f"{name}.png").unlink()
    (tmp_path / "images" / "c.png").write_bytes(b"no image")
    Image.new("RGB", (48, 64)).save(tmp_path / "images" / "e.png")
    (tmp_path / "features" / "g_info.npy").write_bytes(b"damaged")
    status, messages = run()
    assert status == 1
    assert drawn(tmp_path) == ["a.png", "i.png", "index.html"]
    assert in_page(tmp_path) == ["a", "i"]
    missing = [m for m in messages if m.startswith("missing: ")]
    assert len(missing) == 5  # named; the others are counted
    assert missing[0] == f"missing: b: no image in {tmp_path}/images"
    failed = [m for m in messages if m.startswith("failed: ")]
    assert [m.split(":")[1].strip() for m in failed] == ["c", "e", "g"]
    assert "of an image of 64 x 48 pixels, this one has 48 x 64" in failed[1]
    assert "g_info.npy" in failed[2]
    assert messages[-1].endswith("PNGs and index.html of 2 images; 7 missing, 3 failed")


def test_the_limit_counts_what_is_drawn_and_says_so(tmp_path, run):
    make(tmp_path, *"abcd")
    (tmp_path / "images" / "a.png").unlink()
    status, messages = run("--limit", "2")
    assert status == 1
    assert in_page(tmp_path) == ["b", "c"]
    assert messages[1] == "stopped after 2 images: --limit 2"
    for limit in ("0", "3"):
        assert "stopped" not in " ".join(run("--limit", limit)[1])
        assert in_page(tmp_path) == ["b", "c", "d"]


def test_only_the_names_asked_for(tmp_path, run):
    make(tmp_path, *"abcd")
    assert run("--limit", "1", "--names", "c", "a", "c")[0] == 0
    assert in_page(tmp_path) == ["c", "a"]
    status, messages = run("--names", "z", "a")
    assert status == 1
    assert messages[0].startswith("missing: z: ")
    assert in_page(tmp_path) == ["a"]


def test_a_single_image(tmp_path, run):
    make(tmp_path, "a", "b", images=["a.v2.PNG", "b.png", "other.png"])
    assert run(images="images/a.v2.PNG")[0] == 0
    assert in_page(tmp_path) == ["a"]
    status, (error,) = run(images="images/other.png")
    assert status == 2
    assert error.endswith("features: has none of other.png, other")


def test_pngs_or_the_page_alone(tmp_path, run):
    make(tmp_path, "a")
    assert run("--no-png")[1][-1].endswith("drawn: index.html of 1 images; 0 missing, 0 failed")
    assert drawn(tmp_path) == ["index.html"]
    shutil.rmtree(tmp_path / "drawn")
    run("--no-html")
    assert drawn(tmp_path) == ["a.png"]
    assert run("--no-html", "--no-png") == (
        2,
        ["error: --no-png and --no-html leave nothing to do"],
    )


def test_confidence_and_top(tmp_path, run):
    regions = support.some_regions()
    best = np.sort(regions.objects_conf)[::-1]
    make(tmp_path, "a")

    def boxes(*options):
        run(*options)
        (image,) = Parser(tmp_path / "drawn" / "index.html").images()
        colors = np.array(Image.open(tmp_path / "drawn" / "a.png")).reshape(-1, 3)
        return len(image["boxes"]), len(np.unique(colors, axis=0)) > 1

    assert boxes("--min-confidence", "0") == (5, True)
    assert boxes("--top", "3") == (3, True)
    above = boxes("--min-confidence", f"{best[0] + 0.001:.4f}")
    assert above == (5, False)  # the page has a slider


def test_the_class_names_are_those_of_the_file(tmp_path, run):
    names = support.class_names_file(tmp_path)

    def labels(*options):
        assert run(*options, classes=names)[0] == 0
        (image,) = Parser(tmp_path / "drawn" / "index.html").images()
        return [box["label"] for box in image["boxes"]]

    make(tmp_path, "a")
    regions = support.some_regions()
    listed = [entry["name"] for entry in json.loads(names.read_text())["categories"]]
    assert labels() == [listed[k] for k in regions.objects[np.argsort(-regions.objects_conf)]]
    status, (error,) = run("--background", classes=names)
    assert status == 2
    assert "has 9 names, but there are 8 classes" in error
    shutil.rmtree(tmp_path / "features")
    make(tmp_path, "a", cls_prob=None, objects=np.array([0, 9, 1, 2, 3]))
    assert labels("--background") == ["background", *(listed[k] for k in (8, 0, 1, 2))]


def test_the_names_of_the_attributes(tmp_path, run):
    best = {"attrs_id": np.array([1] * 5), "attrs_conf": np.full(5, 0.5, np.float32)}
    make(tmp_path, "a", **best)
    file = tmp_path / "attributes.txt"
    file.write_text("red\nwooden,of wood\n")

    def words(*options, **classes):
        assert run(*options, **classes)[0] == 0
        (image,) = Parser(tmp_path / "drawn" / "index.html").images()
        return {box["text"].partition(" ")[0] for box in image["boxes"]}

    assert words() == {"class"}
    assert words("--attribute-names", file) == {"wooden"}
    names = {str(i + 1): f"thing {i}" for i in range(9)}
    label_map = tmp_path / "map.json"
    label_map.write_text(
        json.dumps({"idx_to_label": names, "idx_to_attribute": {"1": "old", "2": "new"}})
    )
    assert words(classes=label_map) == {"new"}


def test_what_the_manifest_says(tmp_path, run):
    """The files of the names, and that boxes are exclusive."""
    make(tmp_path, "a", attrs_id=np.array([1] * 5), attrs_conf=np.full(5, 0.5, np.float32))

    def first_box(convention, **names):
        manifest = Manifest(tmp_path / "features")
        settings = {"model": {"box_convention": convention}}
        manifest.begin({}, settings=settings, stores=[{"format": "mmf", **names}])
        status, messages = run(classes=None)
        assert status == 0
        (image,) = Parser(tmp_path / "drawn" / "index.html").images()
        return image["boxes"][0], messages

    box, messages = first_box("vinvl")
    assert "classes go by number" in messages[0]
    assert (box["place"], box["stored"]) == ([8, 9, 23, 32], [8, 9, 30, 40])
    assert box["text"].startswith("class ")
    attributes = tmp_path / "attributes.txt"
    attributes.write_text("red\nwooden\n")
    names = {
        "class_names": str(support.class_names_file(tmp_path)),
        "attribute_names": str(attributes),
    }
    box, _ = first_box("frcnn_vg", **names)
    assert (box["place"], box["stored"]) == ([8, 9, 22, 31], [8, 9, 30, 40])
    assert box["text"].startswith("wooden thing ")


def test_photographs_are_never_overwritten(tmp_path, run):
    make(tmp_path, "a")
    before = (tmp_path / "images" / "a.png").read_bytes()
    os.symlink(tmp_path / "images", tmp_path / "drawn")
    status, (error,) = run()
    assert status == 2
    assert error.endswith("a.png would be overwritten: choose another --output")
    assert os.listdir(tmp_path / "images") == ["a.png"]
    assert (tmp_path / "images" / "a.png").read_bytes() == before
    os.unlink(tmp_path / "drawn")
    for _ in range(2):  # what was drawn before is drawn again
        assert run()[0] == 0
    assert drawn(tmp_path) == ["a.png", "index.html"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--min-confidence", "1.1"], "--min-confidence=1.1: has to be from 0 to 1"),
        (["--top", "0"], "--top=0: has to be at least 1"),
        (["--limit", "-1"], "--limit=-1: has to be at least 0"),
    ],
)
def test_numbers_out_of_range(tmp_path, run, arguments, reason):
    make(tmp_path, "a")
    assert run(*arguments) == (2, [f"error: {reason}"])
    assert not (tmp_path / "drawn").exists()


def test_paths_that_arent_there(tmp_path, run):
    make(tmp_path, "a")
    status, (error,) = run(images="nowhere")
    assert status == 2
    assert error.startswith(f"error: IMAGES={tmp_path}/nowhere: ")
    assert error.endswith("No such file or directory")
    (tmp_path / "drawn").write_text("a file")
    assert run() == (2, [f"error: {tmp_path}/drawn: can't be made: File exists"])
    shutil.rmtree(tmp_path / "features")
    assert "features: No such file" in run()[1][0]


@pytest.mark.slow
def test_the_command_itself(tmp_path):
    golden = goldens.load(goldens.find(r"tiny_x152_fpn\.seed0\.bs1\.coffee")[0][0])
    golden = dataclasses.replace(golden, cls_prob=None)  # of which goldens have one column
    (tmp_path / "features").mkdir()
    FORMATS["mmf"].writer(tmp_path / "features").write("coffee", golden)
    support.links(tmp_path / "images", "coffee.png", "rocket.jpg")
    command = ["tools/visualize.py", tmp_path / "features", tmp_path / "images"]
    command += ["--output", tmp_path / "new" / "drawn", "--min-confidence", "0"]
    done = support.run_tool(*command, "--classes", "none")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("PNGs and index.html of 1 images; 0 missing, 0 failed\n")
    (image,) = Parser(tmp_path / "new" / "drawn" / "index.html").images()
    assert (len(image["boxes"]), image["stored"]) == (36, 100)
