"""Boxes clipped to the image: for the formats whose readers insist, and as chosen.

Their readers are written here as LXMERT and VL-T5 have them.
"""

import base64
import csv
import dataclasses
import json
import logging
import sys

import h5py
import hypothesis.extra.numpy
import jobs
import numpy as np
import pytest
import support
from fakes import small_images
from hypothesis import given
from hypothesis import strategies as st
from jobs import manifest
from support import TINY_FPN

from reference import goldens
from vmb_d2.errors import ConfigError, OutputError
from vmb_d2.output.open_stores import open_reader
from vmb_d2.output.shards import Shard
from vmb_d2.output.store_set import StoreSet
from vmb_d2.packing.job import pack
from vmb_d2.stores import FORMATS

CLIPPED = ["lxmert_tsv", "hdf5"]

LXMERT_FIELDS = [
    *("img_id", "img_h", "img_w", "objects_id", "objects_conf", "attrs_id", "attrs_conf"),
    *("num_boxes", "boxes", "features"),
]


def insist(boxes, width, height):
    """What both readers do with an image's boxes, in float32."""
    boxes = boxes.copy()
    boxes[:, (0, 2)] /= width
    boxes[:, (1, 3)] /= height
    np.testing.assert_array_less(boxes, 1 + 1e-5)
    np.testing.assert_array_less(-boxes, 0 + 1e-5)
    return boxes


def lxmert_reads(path):
    """LXMERT's load_obj_tsv, and what its data sets do with an image: boxes by name."""
    csv.field_size_limit(sys.maxsize)
    found = {}
    with open(path) as file:
        for item in csv.DictReader(file, LXMERT_FIELDS, delimiter="\t"):
            for key in ("img_h", "img_w", "num_boxes"):
                item[key] = int(item[key])
            count = item["num_boxes"]
            for key, shape, dtype in (
                ("objects_id", (count,), np.int64),
                ("objects_conf", (count,), np.float32),
                ("attrs_id", (count,), np.int64),
                ("attrs_conf", (count,), np.float32),
                ("boxes", (count, 4), np.float32),
                ("features", (count, -1), np.float32),
            ):
                item[key] = np.frombuffer(base64.b64decode(item[key]), dtype).reshape(shape)
            insist(item["boxes"], item["img_w"], item["img_h"])
            found[item["img_id"]] = item["boxes"]
    return found


def vl_t5_reads(path):
    """VL-T5's reading of an image: boxes by name."""
    found = {}
    with h5py.File(path) as file:
        for name in file:
            features = np.zeros(file[f"{name}/features"].shape, np.float32)
            file[f"{name}/features"].read_direct(features)
            boxes = file[f"{name}/boxes"][()]
            for key in ("obj_id", "obj_conf", "attr_id", "attr_conf"):
                assert file[f"{name}/{key}"][()].shape == (len(boxes),)
            insist(boxes, file[f"{name}/img_w"][()], file[f"{name}/img_h"][()])
            found[name] = boxes
    return found


READERS = {"lxmert_tsv": lxmert_reads, "hdf5": vl_t5_reads}


def reaches_out(regions):
    inside = regions.clipped().bbox
    return not np.array_equal(inside, regions.bbox)


def boxes_of(folder, name):
    """By image; of uniter, which has no others, as shares of the image."""
    with open_reader(folder, name) as reader:
        images = {image: reader.read(image) for image in reader.names()}
    return {k: r.extra["norm_bb"] if name == "uniter" else r.bbox for k, r in images.items()}


def expected_in(name, regions):
    """What :func:`boxes_of` has to find of an image in a format."""
    return regions.normalized_boxes().astype(np.float16) if name == "uniter" else regions.bbox


def naive(box, width, height):
    return [min(max(x, 0), most) for x, most in zip(box, [width, height] * 2, strict=True)]


sides = st.integers(1, 5000)
boxes = hypothesis.extra.numpy.arrays(
    np.float32,
    st.tuples(st.integers(0, 8), st.just(4)),
    elements=st.floats(-(2**14), 2**14, width=32),
)


@given(boxes, sides, sides)
def test_boxes_are_in_the_image_and_those_in_it_stay(bbox, width, height):
    before = bbox.copy()
    regions = support.some_regions(
        count=len(bbox), bbox=bbox, image_width=width, image_height=height
    )
    found = regions.clipped()
    assert found.bbox.dtype == np.float32
    expected = [naive(box, width, height) for box in bbox]
    assert found.bbox.tolist() == expected
    insist(found.bbox, width, height)
    inside = [box == own for box, own in zip(bbox.tolist(), expected, strict=True)]
    assert found.bbox[inside].tobytes() == bbox[inside].tobytes()  # -0.0 too
    assert bbox.tobytes() == before.tobytes()
    assert found.clipped().bbox.tobytes() == found.bbox.tobytes()
    support.assert_same_regions(dataclasses.replace(found, bbox=bbox), regions)


# The goldens of batches of one image whose boxes reach into the padding.
GOLDENS = {
    name.split(".")[0]: goldens.load(path)
    for path, _, name in goldens.find(rf"{TINY_FPN}\.seed0\.bs1\.")
    if reaches_out(goldens.load(path))
}


@pytest.fixture
def stored(tmp_path):
    """An output folder of all formats with the goldens."""
    folder = tmp_path / "stored"
    folder.mkdir()
    with StoreSet(folder, list(FORMATS)) as stores:
        for name, regions in GOLDENS.items():
            stores.write(name, regions)
    return folder


def check(found, expected):
    assert found.keys() == expected.keys()
    for image, bbox in expected.items():
        assert np.array_equal(found[image], bbox), image


def test_the_goldens(stored):
    assert GOLDENS.keys() == {"chelsea", "horse", "rocket"}
    clipped = {name: regions.clipped().bbox for name, regions in GOLDENS.items()}
    for name, format_ in FORMATS.items():
        assert format_.clips_boxes == (name in CLIPPED)
        originals = {image: expected_in(name, regions) for image, regions in GOLDENS.items()}
        check(boxes_of(stored, name), clipped if name in CLIPPED else originals)
    for name, read in READERS.items():
        check(read(stored / FORMATS[name].place), clipped)


@pytest.mark.slow
def test_a_photograph(tmp_path):
    """Extracted as users do it."""
    source, out = support.links(tmp_path / "in", "chelsea.png"), tmp_path / "out"
    formats = "output.format=[mmf,lxmert_tsv,hdf5]"
    done = support.extract_tiny(TINY_FPN, source, out, formats)
    assert done.returncode == 0, done.stderr
    with open_reader(out, "mmf") as reader:
        regions = reader.read("chelsea")
    assert reaches_out(regions)
    for name, read in READERS.items():
        check(read(out / FORMATS[name].place), {"chelsea": regions.clipped().bbox})
    stores = manifest(out)["stores"]
    assert {s["format"]: s["boxes_clipped"] for s in stores} == {
        "mmf": False,
        "lxmert_tsv": True,
        "hdf5": True,
    }


@pytest.mark.parametrize("name", CLIPPED)
@pytest.mark.parametrize("choice", [None, True, False])
def test_packed(stored, tmp_path, caplog, name, choice):
    caplog.set_level(logging.INFO)
    out = tmp_path / "out"
    pack([stored], name, out, source_format="mmf", clip_boxes=choice)
    assert ("boxes are clipped" in caplog.text) == (choice is not False)
    expected = boxes_of(stored, "mmf" if choice is False else name)
    check(boxes_of(out, name), expected)
    if choice is False:
        with pytest.raises(AssertionError):
            READERS[name](out / FORMATS[name].place)
    else:
        check(READERS[name](out / FORMATS[name].place), expected)


@pytest.fixture
def images(tmp_path):
    """Of which the regions made up reach out."""
    return small_images(tmp_path / "in", 3)


def run(out, images, *formats, **values):
    return jobs.run(out, images, formats=formats, **values)


@pytest.mark.parametrize("choice", [True, False])
def test_a_choice_is_for_all_formats(tmp_path, images, choice):
    run(tmp_path / "out", images, *FORMATS, clip_boxes=choice)
    run(tmp_path / "as they are", images, "mmf")
    with open_reader(tmp_path / "as they are") as reader:
        for name in FORMATS:
            found = boxes_of(tmp_path / "out", name)
            for image in reader.names():
                regions = reader.read(image)
                assert reaches_out(regions)
                expected = regions.clipped() if choice else regions
                assert np.array_equal(found[image], expected_in(name, expected)), name
    for store in manifest(tmp_path / "out")["stores"]:
        assert store["boxes_clipped"] is choice


def test_the_same_choice_goes_on_and_another_is_refused(tmp_path, images):
    out = tmp_path / "out"
    run(out, images[:1], "mmf", "lxmert_tsv")
    for formats, choice in ((["mmf", "lxmert_tsv"], True), (["lxmert_tsv"], False)):
        with pytest.raises(OutputError, match=r"clip_boxes\.\w+: (true|false) there, "):
            run(out, images, *formats, clip_boxes=choice)
    assert run(out, images, "mmf", clip_boxes=False).extracted == 2  # as mmf has it anyway
    assert run(out, images, "lxmert_tsv", clip_boxes=True).extracted == 2
    assert run(out, images, "hdf5", clip_boxes=False).extracted == 3
    with pytest.raises(OutputError, match=r"clip_boxes\.lxmert_tsv: true there, false now"):
        run(out, images, "lxmert_tsv", "hdf5", clip_boxes=False)  # although others came between
    run(out, images, "lxmert_tsv", clip_boxes=False, allow_mismatch=True)


def test_shards_of_another_choice_are_refused(tmp_path, images):
    shards = [Shard("", 2, index) for index in (0, 1)]
    run(tmp_path / "out", images, "hdf5", shard=shards[0], clip_boxes=False)
    with pytest.raises(OutputError, match=r"clip_boxes\.hdf5: false there, true now"):
        run(tmp_path / "out", images, "hdf5", shard=shards[1])
    run(tmp_path / "out", images, "hdf5", shard=shards[1], clip_boxes=False)
    pack([tmp_path / "out"], "hdf5", tmp_path / "out")  # merged as they are
    run(tmp_path / "alone", images, "hdf5", clip_boxes=False)
    found, expected = (boxes_of(tmp_path / folder, "hdf5") for folder in ("out", "alone"))
    assert all(np.array_equal(found[image], expected[image]) for image in expected)


def test_a_folder_of_a_version_without_the_choice(tmp_path, images):
    out = tmp_path / "out"
    run(out, images[:2], "mmf", "lxmert_tsv", clip_boxes=False)
    content = manifest(out)
    del content["settings"]["clip_boxes"]
    for store in content["stores"]:
        del store["boxes_clipped"]
    (out / "manifest.json").write_text(json.dumps(content))
    assert run(out, images, "mmf").skipped == 2
    (out / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(OutputError, match=r"clip_boxes\.lxmert_tsv: false there, true now"):
        run(out, images, "lxmert_tsv")
    assert run(out, images, "lxmert_tsv", clip_boxes=False).extracted == 1


def test_packed_to_what_is_of_another_choice(tmp_path, images):
    run(tmp_path / "a", images[:1], "mmf")
    run(tmp_path / "b", images, "mmf")
    out = tmp_path / "out"
    pack([tmp_path / "a"], "lxmert_tsv", out, clip_boxes=False)
    with pytest.raises(ConfigError, match="boxes that are there are not clipped"):
        pack([tmp_path / "b"], "lxmert_tsv", out, clip_boxes=True)
    assert pack([tmp_path / "b"], "lxmert_tsv", out).packed == 2
    assert manifest(out)["stores"][0]["boxes_clipped"] is False
    with pytest.raises(AssertionError):
        lxmert_reads(out / "lxmert.tsv")
    assert pack([tmp_path / "b"], "lxmert_tsv", out, clip_boxes=True, allow_mismatch=True)


def test_what_was_clipped_stays_so_in_any_format(tmp_path, images, caplog):
    run(tmp_path / "a", images[:1], "lxmert_tsv")
    run(tmp_path / "b", images[1:], "mmf")
    out = tmp_path / "out"
    pack([tmp_path / "a"], "npz", out)
    assert manifest(out)["stores"][0]["boxes_clipped"] is True
    pack([tmp_path / "a"], "npz", out)
    assert pack([tmp_path / "b"], "npz", out).packed == 2  # like those that are there
    assert not any(map(reaches_out, (open_reader(out).read(image.name) for image in images)))
    both = [tmp_path / "a", tmp_path / "b"]
    pack(both, "npz", tmp_path / "alike", clip_boxes=True)
    assert "others are not" not in caplog.text
    pack(both, "npz", tmp_path / "mixed")
    assert "some boxes are clipped to the image already, others are not" in caplog.text


def test_images_of_unknown_size_are_said(tmp_path, caplog):
    regions = support.some_regions(bbox=np.float32([[-5, 0, 9000, 9]] * 5), image_width=None)
    writer = FORMATS["mmf"].writer(tmp_path / "in")
    for name in "ab":
        writer.write(name, regions)
    writer.close()
    pack([tmp_path / "in"], "hdf5", tmp_path / "out")
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert warnings == ["mmf has images of unknown size: their boxes can't be clipped"]
    assert np.array_equal(boxes_of(tmp_path / "out", "hdf5")["a"], regions.bbox)
    caplog.clear()
    pack([tmp_path / "in"], "lmdb", tmp_path / "out")
    assert "can't be clipped" not in caplog.text
