"""The npz files: what NumPy makes of them, and files that others wrote."""

import numpy as np
import pytest
import store_files
import support
import torch

from vmb_d2.errors import StoreError
from vmb_d2.output.open_stores import open_reader
from vmb_d2.stores import FORMATS
from vmb_d2.stores.npz import NpzReader, NpzWriter, OpenVQAReader, OpenVQAWriter


@pytest.fixture
def regions():
    return support.some_regions()


def foreign(path, regions, **changes):
    """A file as bottom-up-attention.pytorch writes it."""
    info = {
        "image_id": path.stem,
        "image_h": np.size(np.empty((427, 640)), 0),
        "image_w": 640,
        "num_boxes": len(regions),
        "objects_id": regions.objects,
        "objects_conf": regions.objects_conf,
        "attrs_id": np.arange(5),
        "attrs_conf": np.full(5, 0.5, np.float32),
    }
    arrays = {
        "x": regions.features,
        "bbox": regions.bbox,
        "num_bbox": len(regions),
        "image_h": 427,
        "image_w": 640,
        "info": info,
    }
    arrays = {key: value for key, value in (arrays | changes).items() if value is not None}
    np.savez_compressed(path, **arrays)
    return path


def test_a_file_of_another_program(tmp_path, regions):
    foreign(tmp_path / "a.npz", regions)
    found = NpzReader(tmp_path).read("a")
    assert np.array_equal(found.features, regions.features)
    assert np.array_equal(found.bbox, regions.bbox)
    assert np.array_equal(found.objects, regions.objects)
    assert np.array_equal(found.objects_conf, regions.objects_conf)
    assert np.array_equal(found.attrs_id, np.arange(5))
    assert found.cls_prob is None
    assert (found.num_boxes, found.image_width, found.image_height) == (5, 640, 427)
    assert found.extra == {}


@pytest.mark.parametrize(
    ("changes", "field", "expected"),
    [
        ({"info": None}, "objects", None),
        ({"info": None, "num_bbox": None}, "num_boxes", 5),
        ({"info": {"num_boxes": np.int64(3)}}, "num_boxes", 3),
        ({"info": {"objects": [1, 2, 3, 4, 5]}}, "objects", [1, 2, 3, 4, 5]),
        ({"info": {"image_id": "77"}}, "extra", {"image_id": "77"}),
        ({"image_w": None, "info": {"image_w": 99}}, "image_width", 99),
        ({"bbox": None}, "bbox", None),
        ({"scale": np.float64(2)}, "extra", {"scale": 2.0}),
    ],
)
def test_files_with_fewer_and_other_keys(tmp_path, regions, changes, field, expected):
    foreign(tmp_path / "a.npz", regions, **changes)
    found = NpzReader(tmp_path).read("a")
    assert np.array_equal(found.features, regions.features)
    value = getattr(found, field)
    assert (value.tolist() if isinstance(value, np.ndarray) else value) == expected


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"x": None}, "no features x"),
        ({"x": np.zeros((16, 7), np.float32)}, r"bbox of shape \(5, 4\) with 16 features"),
        ({"x": np.zeros((5, 4, 4), np.float32)}, "not \\(N, D\\)"),
        ({"info": {"num_boxes": "many"}}, "num_boxes is no number"),
        ({"info": {"objects": object}}, "asks for builtins.object"),
        ({"info": {"cls_prob": np.zeros(5)}}, "cls_prob of shape"),
        (
            {"info": {"attribute_ids": np.zeros((5, 2)), "attribute_scores": np.zeros((5, 3))}},
            "attribute_ids of shape",
        ),
    ],
)
def test_what_is_no_image(tmp_path, regions, changes, reason):
    foreign(tmp_path / "a.npz", regions, **changes)
    with pytest.raises(StoreError, match=rf"a\.npz: .*{reason}"):
        NpzReader(tmp_path).read("a")


def test_a_newer_file_with_tensors(tmp_path, regions):
    """As bottom-up-attention.pytorch writes it with Detectron2: attributes are probabilities."""
    chance = torch.rand((400, 5), generator=torch.manual_seed(0)).T  # not contiguous
    info = {
        "objects": torch.from_numpy(regions.objects),
        "cls_prob": torch.from_numpy(regions.cls_prob)[:, 1:],
        "attrs_id": chance,
        "attrs_scores": chance.max(dim=1).values,
    }
    inner = {"image_h_inner": 800, "image_w_inner": 1199}
    foreign(tmp_path / "a.npz", regions, info=info, **inner)
    found = NpzReader(tmp_path).read("a")
    assert np.array_equal(found.attrs_id, chance.argmax(dim=1))
    assert np.array_equal(found.attrs_conf, chance.max(dim=1).values)
    assert np.array_equal(found.objects, regions.objects)
    assert np.array_equal(found.cls_prob, regions.cls_prob[:, 1:])
    assert set(found.extra) == {"attrs_prob", "attrs_scores", *inner}
    assert np.array_equal(found.extra["attrs_prob"], chance)
    assert type(found.extra["attrs_scores"]) is np.ndarray
    assert (found.extra["image_h_inner"], found.extra["image_w_inner"]) == (800, 1199)


def test_a_flipped_bit_shows_or_changes_nothing(tmp_path, regions):
    """Each array has a checksum; its date, for example, doesn't matter."""
    NpzWriter(tmp_path).write("a", regions)
    whole = (tmp_path / "a.npz").read_bytes()
    errors = []
    directory = whole.index(b"PK\1\2")  # it has none, and can lose entries
    for place in range(0, directory, 3):
        wrong = whole[:place] + bytes([whole[place] ^ 8]) + whole[place + 1 :]
        (tmp_path / "a.npz").write_bytes(wrong)
        try:
            found = NpzReader(tmp_path).read("a")
        except StoreError as error:
            errors.append(str(error))
        else:
            support.assert_same_regions(found, regions)
    assert sum("Bad CRC-32" in error for error in errors) > directory / 3 * 0.6


@pytest.mark.parametrize(("count", "dimension"), [(5, 16), (16, 5), (9, 9), (1, 8), (1, 1)])
def test_what_openvqa_reads(tmp_path, count, dimension):
    regions = support.some_regions(count=count, dimension=dimension)
    OpenVQAWriter(tmp_path).write("sub/a", regions)
    with np.load(tmp_path / "sub" / "a.npz") as content:
        assert np.array_equal(content["x"].transpose((1, 0)), regions.features)
        assert np.array_equal(content["bbox"], regions.bbox)
        assert (content["image_h"], content["image_w"]) == (427, 640)
    support.assert_same_regions(OpenVQAReader(tmp_path).read("sub/a"), regions)


@pytest.mark.parametrize("x", ["x", "x.T", "copy of x.T"])
@pytest.mark.parametrize("reader", [NpzReader, OpenVQAReader])
def test_either_layout_is_read_as_the_boxes_say(tmp_path, regions, reader, x):
    layouts = {
        "x": regions.features,
        "x.T": regions.features.T,
        "copy of x.T": np.ascontiguousarray(regions.features.T),
    }
    foreign(tmp_path / "a.npz", regions, x=layouts[x])
    assert np.array_equal(reader(tmp_path).read("a").features, regions.features)
    assert store_files.kinds_of(tmp_path) == ["npz" if x == "x" else "openvqa"]


@pytest.mark.parametrize("changes", [{"bbox": None}, {"bbox": np.ones((9, 4), np.float32)}])
def test_where_the_boxes_dont_say_it_the_format_does(tmp_path, changes):
    """Of as many regions as numbers, and without boxes."""
    x = support.some_regions(count=9, dimension=9).features
    for folder, content in (("npz", x), ("openvqa", x.T)):
        (tmp_path / folder).mkdir()
        only = {"x": content, "info": None, "num_bbox": None, **changes}
        foreign(tmp_path / folder / "a.npz", support.some_regions(count=9), **only)
        with open_reader(tmp_path / folder) as reader:
            assert type(reader) is FORMATS[folder].reader
            assert np.array_equal(reader.read("a").features, x)


def write(path, kind, *names):
    store_files.write(path, kind, {name: support.some_regions() for name in names})


@pytest.mark.parametrize("content", [b"", b"damaged"])
def test_a_damaged_file_alone_is_of_the_format_of_its_place(tmp_path, content):
    for folder in ("openvqa", "other"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.npz").write_bytes(content)
        kind = "openvqa" if folder == "openvqa" else "npz"
        assert store_files.kinds_of(tmp_path / folder) == [kind]
