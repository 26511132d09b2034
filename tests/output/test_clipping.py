"""Boxes clipped to the image: for the formats whose readers insist, and as chosen."""

import dataclasses
import logging

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
from vmb_d2.output.store_set import StoreSet
from vmb_d2.packing.job import pack
from vmb_d2.stores import FORMATS

CLIPPED = ["lxmert_tsv", "hdf5"]


def insist(boxes, width, height):
    """What LXMERT and VL-T5 do with an image's boxes, in float32."""
    boxes = boxes.copy()
    boxes[:, (0, 2)] /= width
    boxes[:, (1, 3)] /= height
    np.testing.assert_array_less(boxes, 1 + 1e-5)
    np.testing.assert_array_less(-boxes, 0 + 1e-5)


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


@pytest.mark.parametrize("name", CLIPPED)
@pytest.mark.parametrize("choice", [None, True, False])
def test_packed(stored, tmp_path, caplog, name, choice):
    caplog.set_level(logging.INFO)
    out = tmp_path / "out"
    pack([stored], name, out, source_format="mmf", clip_boxes=choice)
    assert ("boxes are clipped" in caplog.text) == (choice is not False)
    expected = boxes_of(stored, "mmf" if choice is False else name)
    check(boxes_of(out, name), expected)


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


def test_packed_to_what_is_of_another_choice(tmp_path, images):
    run(tmp_path / "a", images[:1], "mmf")
    run(tmp_path / "b", images, "mmf")
    out = tmp_path / "out"
    pack([tmp_path / "a"], "lxmert_tsv", out, clip_boxes=False)
    with pytest.raises(ConfigError, match="boxes that are there are not clipped"):
        pack([tmp_path / "b"], "lxmert_tsv", out, clip_boxes=True)
    assert pack([tmp_path / "b"], "lxmert_tsv", out).packed == 2
    assert manifest(out)["stores"][0]["boxes_clipped"] is False
    assert pack([tmp_path / "b"], "lxmert_tsv", out, clip_boxes=True, allow_mismatch=True)


def test_what_was_clipped_stays_so_in_any_format(tmp_path, images, caplog):
    run(tmp_path / "a", images[:1], "lxmert_tsv")
    run(tmp_path / "b", images[1:], "mmf")
    out = tmp_path / "out"
    pack([tmp_path / "a"], "npz", out)
    assert manifest(out)["stores"][0]["boxes_clipped"] is True
    assert pack([tmp_path / "b"], "npz", out).packed == 2  # like those that are there
    assert not any(map(reaches_out, (open_reader(out).read(image.name) for image in images)))
    both = [tmp_path / "a", tmp_path / "b"]
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
