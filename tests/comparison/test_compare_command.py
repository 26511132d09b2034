"""tools/compare_features.py as users run it, on stores of every format."""

import json
import os

import numpy as np
import pytest
import support
from comparison_stores import boxes, changed, every, features, images, rows
from sharded import place, write_shards
from store_files import ONE_FILE

from vmb_d2.comparison.causes import CAUSES
from vmb_d2.stores import FORMATS, format_named

TOOL = support.ROOT / "tools" / "compare_features.py"
A = every(images(count=4, regions=12), lambda r: changed(r, num_boxes=11))


def write(folder, regions, name="mmf"):
    """A store of a format in an output folder."""
    folder.mkdir(parents=True, exist_ok=True)
    format_ = format_named(name)
    place = folder / format_.place
    place.parent.mkdir(parents=True, exist_ok=True)
    writer = format_.writer(place)
    for image, content in regions.items():
        writer.write(image, content)
    writer.close()
    return folder


@pytest.fixture
def command(monkeypatch, capsys):
    return support.in_this_process(TOOL, monkeypatch, capsys)


@pytest.fixture
def stores(tmp_path):
    b = every(A, lambda r: rows(r, np.arange(9)))
    return write(tmp_path / "a", A), write(tmp_path / "b", b)


@pytest.mark.slow
def test_as_a_program(stores):
    a, b = stores
    done = support.run_tool(TOOL, a, b)
    assert done.returncode == 1
    assert done.stderr == ""
    assert done.stdout.startswith(f"A: {a}\nB: {b}\n")
    assert "regions matched         36: 75.00% of A, 100.00% of B" in done.stdout
    assert "another num_features" in done.stdout


@pytest.mark.parametrize("name", FORMATS)
def test_every_format(command, tmp_path, name):
    a = write(tmp_path / "a", A)
    b = write(tmp_path / "b", A, name)
    status, out, err = command(a, b, "--json", "-")
    assert (status, err) == (0, "")
    found = json.loads(out)
    assert found["b"]["format"] == name
    assert found["regions"]["matched"] == 48
    assert found["feature_error"]["max"] <= (5e-4 if name == "uniter" else 0)  # in float16
    doubled = every(A, lambda r: features(r, lambda f: f * 2))
    status, out, _ = command(write(tmp_path / "doubled", doubled, name), a)
    assert status == 1
    assert "the difference in: features" in out


@pytest.mark.parametrize("name", ONE_FILE)
def test_shards(command, tmp_path, name):
    a = write(tmp_path / "a", A)
    names = list(A)
    parts = [{n: A[n] for n in names[:3]}, {n: A[n] for n in names[2:]}]
    b = write_shards(tmp_path / "b", name, parts, "fc6") / "fc6"
    for one, other, key in ((a, b, "b"), (b, a, "a")):
        status, out, err = command(one, other, "--json", "-")
        assert (status, err) == (0, "")
        found = json.loads(out)
        store = found[key]
        assert (store["path"], store["format"], store["images"]) == (str(b), name, 4)
        assert found["regions"]["matched"] == 48
    assert command(b, b, "--format-a", name, "--limit", "1")[0] == 0
    damaged = place(tmp_path / "b", 1, 2, name, "fc6")
    support.data_file(name, damaged).write_bytes(b"damaged")
    status, _, err = command(a, b)
    assert status == 2
    assert f"shards/1-of-2/fc6/{FORMATS[name].place}" in one_line(err)


def test_a_folder_of_several_stores(command, tmp_path):
    first, second = list(FORMATS)[:2]
    a = write(tmp_path / "a", A)
    both = write(write(tmp_path / "both", A, first), A, second)
    status, _, err = command(a, both)
    assert status == 2
    assert f"holds several stores ({first}, {second})" in err
    for name in (first, second):
        assert command(a, both, "--format-b", name)[0] == 0
        assert command(both, a, "--format-a", name)[0] == 0


def test_json(command, stores, tmp_path):
    a, b = stores
    file = tmp_path / "result.json"
    status, out, _ = command(a, b, "--json", file, "--iou", 0.8, "--limit", 3)
    assert status == 1
    assert "regions matched" in out
    found = json.loads(file.read_text())
    assert json.loads(command(a, b, "--json", "-", "--iou", 0.8, "--limit", 3)[1]) == found
    assert found["same"] is False
    assert [reason["kind"] for reason in found["reasons"]] == ["boxes"]
    (opinion,) = found["opinions"]
    assert opinion["name"] == "num_features"
    assert opinion["explains"] == ["boxes", "num_boxes"]
    assert (found["settings"]["iou"], found["settings"]["limit"]) == (0.8, 3)
    assert found["a"] == {
        "path": str(a),
        "format": "mmf",
        "images": 4,
        "only_here": {"count": 0, "first": []},
        "regions": 36,
        "regions_an_image": "12",
        "features": ["float32 x 32"],
        "cls_prob_columns": [9],
        "num_boxes": 33,
        "non_finite_regions": 0,
    }
    assert found["images"] == {
        "common": 4,
        "compared": 3,
        "paired_by": "the whole name",
        "other_size": 0,
    }
    assert found["regions"]["share_of_a"] == 0.75
    assert found["feature_error"]["worst_image"] in A


def test_every_json_key_is_documented(command, stores):
    """Of the first two levels, and every cause's name."""
    text = (support.ROOT / "docs" / "comparing.md").read_text()
    found = json.loads(command(*stores, "--json", "-")[1])
    keys = {*found, *(key for value in found.values() if isinstance(value, dict) for key in value)}
    names = {cause.__name__ for cause in CAUSES}
    assert {word for word in keys | names if f"`{word}`" not in text} == set()


@pytest.mark.parametrize(
    ("change", "options"),
    [
        (lambda r: features(r, lambda f: f * np.float32(1.01)), ["--tolerance", "0.02"]),
        (lambda r: rows(r, np.arange(9)), ["--matched", "0.75"]),
        (lambda r: boxes(r, lambda b: b + 2), ["--iou", "0.3"]),
    ],
    ids=["tolerance", "matched", "iou"],
)
def test_the_settings(command, tmp_path, change, options):
    a, b = write(tmp_path / "a", A), write(tmp_path / "b", every(A, change))
    assert command(a, b)[0] == 1
    status, out, err = command(a, b, *options)
    assert (status, err) == (0, "")
    assert "SAME, within the tolerances\n" in out


def test_common_only(command, tmp_path):
    a, part = write(tmp_path / "a", A), write(tmp_path / "part", {"image_1": A["image_1"]})
    assert command(a, part)[0] == 1
    assert command(a, part, "--common-only")[0] == 0
    assert command(part, a, "--common-only")[0] == 0


def one_line(err):
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    return line


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["{a}", "{tmp}/nowhere"], "nowhere: No such file or directory"),
        (["{tmp}/nowhere", "{a}"], "nowhere: No such file or directory"),
        (["{a}", "{tmp}/empty"], "no store"),
        (["{a}", "{a}", "--format-b", "zip"], "zip"),
        (["{a}", "{a}", "--iou", "2"], "--iou=2.0: has to be above 0 and at most 1"),
        (["{a}", "{a}", "--json", "{tmp}/no/x.json"], "x.json: can't be written: No such file"),
    ],
)
def test_mistakes_are_one_line(command, stores, tmp_path, arguments, expected):
    (tmp_path / "empty").mkdir()
    arguments = [x.format(a=stores[0], tmp=tmp_path) for x in arguments]
    status, _, err = command(*arguments)
    assert status == 2
    assert expected in one_line(err)


def test_a_damaged_image_is_one_line(command, stores):
    a, b = stores
    (b / "image_1.npy").write_bytes(b"\x93NUMPY")
    status, out, err = command(a, b)
    assert (status, out) == (2, "")
    assert "image_1.npy" in one_line(err)
    np.save(b / "image_1.npy", np.zeros((7, 32), np.float32))
    status, _, err = command(a, b)
    assert status == 2
    assert "image_1: bbox of shape (9, 4) with 7 features" in one_line(err)


def test_names_that_are_no_text(command, tmp_path):
    name = os.fsdecode(b"caf\xe9")
    a = write(tmp_path / "a", {name: A["image_0"]})
    b = write(tmp_path / "b", {name: changed(A["image_0"], num_boxes=3), "x": A["image_0"]})
    status, out, _ = command(a, b)
    assert status == 1
    assert "only in B: x" in out
    status, out, _ = command(b, a, "--json", "-")
    assert json.loads(out)["feature_error"]["worst_image"] == name
    other = write(tmp_path / "other", {"x": A["image_0"]})
    assert "only in A: caf\\udce9" in command(a, other)[1]
