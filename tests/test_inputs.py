"""Listing, excluding, slicing and batching."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmb_d2 import inputs
from vmb_d2.errors import InputError


def make(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return folder


def test_images_of_a_folder_sorted_by_path(tmp_path):
    make(tmp_path, "b.png", "a.jpeg", "C.JPG", "notes.txt", ".hidden.png", "sub/d.png", "e.jpg.bak")
    (tmp_path / "folder.png").mkdir()
    names = [os.path.basename(p) for p in inputs.list_images(tmp_path)]
    assert names == ["C.JPG", "a.jpeg", "b.png"]


def test_one_file(tmp_path):
    make(tmp_path, "a.b.png")
    assert inputs.list_images(tmp_path / "a.b.png") == [str(tmp_path / "a.b.png")]


def test_nothing_to_list(tmp_path):
    with pytest.raises(InputError, match=r"input\.dir=.*no \.png, \.jpg, \.jpeg"):
        inputs.list_images(tmp_path)
    with pytest.raises(InputError, match="No such file"):
        inputs.list_images(tmp_path / "none")


def test_name_ends_at_the_first_dot():
    assert inputs.output_name("/x.y/COCO_val2014_1.tar.jpg") == "COCO_val2014_1"


def test_exclude_list_takes_names_and_paths(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("a\n\nsome/where/b.jpg\n c.png \n")
    assert inputs.read_exclude_list(path) == {"a", "b", "c"}
    with pytest.raises(InputError, match=r"input\.exclude_list"):
        inputs.read_exclude_list(tmp_path / "none.txt")


def test_exclusion_comes_before_slicing():
    paths = [f"{c}.png" for c in "abcdef"]
    assert inputs.select_images(paths, {"a", "c"}, 1, 3) == ["d.png", "e.png"]
    assert inputs.select_images(paths, start=4) == ["e.png", "f.png"]


@pytest.mark.parametrize(
    "pair", [("x.jpg", "x.png"), ("x.1.jpg", "x.2.jpg"), ("x.jpg", "x_info.jpg")]
)
def test_two_images_of_one_name_are_refused(pair):
    with pytest.raises(InputError, match="would both be stored") as caught:
        inputs.select_images(pair)
    assert all(path in str(caught.value) for path in pair)
    assert inputs.select_images(pair, start=1) == [pair[1]]


SIZES = [(800, 800), (800, 1216), (1216, 800)]


@given(st.lists(st.sampled_from([*SIZES, None]), max_size=30), st.integers(1, 6))
def test_bucketed_batches(sizes, batch_size):
    size_of = {f"{i}": size for i, size in enumerate(sizes)}
    batches = list(inputs.bucketed_batches(list(size_of), batch_size, size_of.get))
    batched = [path for batch in batches for path in batch.paths]
    assert sorted(batched) == sorted(p for p, s in size_of.items() if s)
    for batch in batches:
        assert 1 <= len(batch.paths) <= batch_size
        assert {size_of[p] for p in batch.paths} == {batch.padded_size}
    partial = [b.padded_size for b in batches if len(b.paths) < batch_size]
    assert len(partial) == len(set(partial))


def test_buckets_hold_no_more_than_a_batch():
    """What is waiting stays bounded: a full bucket leaves before the next image is looked at."""
    looked_at = []

    def size_of(path):
        looked_at.append(path)
        return SIZES[0]

    batches = inputs.bucketed_batches(map(str, range(1000)), 3, size_of)
    next(batches)
    assert len(looked_at) == 3


@given(st.lists(st.sampled_from([*SIZES, None]), max_size=30), st.integers(1, 6), st.data())
def test_mmf_batches(sizes, batch_size, data):
    size_of = {f"{i}": size for i, size in enumerate(sizes)}
    paths = list(size_of)
    whole = list(inputs.mmf_batches(paths, batch_size, size_of.get))
    padded = {path: batch.padded_size for batch in whole for path in batch.paths}
    for begin in range(0, len(paths), batch_size):
        known = [size_of[p] for p in paths[begin : begin + batch_size] if size_of[p]]
        for path in paths[begin : begin + batch_size]:
            if size_of[path]:
                assert padded.pop(path) == (max(h for h, _ in known), max(w for _, w in known))
    assert not padded
    # What is wanted is padded as in the whole run, whatever else is left out.
    wanted = data.draw(st.sets(st.sampled_from(paths))) if paths else set()
    part = list(inputs.mmf_batches(paths, batch_size, size_of.get, wanted.__contains__))
    left = {path: batch.padded_size for batch in part for path in batch.paths}
    expected = {path: batch.padded_size for batch in whole for path in batch.paths}
    assert left == {path: size for path, size in expected.items() if path in wanted}
