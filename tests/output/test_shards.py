"""Shards: shares of the images that are whole together, and their folders' names."""

import hashlib
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vmb_d2.errors import ConfigError
from vmb_d2.output.shards import Shard, shards_in, source_name
from vmb_d2.structures.input_image import InputImage

totals, counts, chunks = st.integers(0, 300), st.integers(1, 40), st.integers(1, 20)


def all_shards(count, source=""):
    return [Shard(source, count, index) for index in range(count)]


def images_named(count):
    return [InputImage(f"/in/{i:03}.png", f"{i:03}") for i in range(count)]


def naive_shares(items, count, chunk):
    """Each shard adds the number of chunks to what is due, and takes one whenever all are due."""
    pieces = [items[i : i + chunk] for i in range(0, len(items), chunk)]
    shares, number, due = [], len(pieces), 0
    for _ in range(count):
        due += number
        shares.append([])
        while due >= count:
            shares[-1] += pieces.pop(0)
            due -= count
    return shares


@given(totals, counts, chunks)
def test_the_shares_are_those_of_a_naive_loop(total, count, chunk):
    images = images_named(total)
    shares = [shard.share(images, images, chunk) for shard in all_shards(count)]
    assert shares == naive_shares(images, count, chunk)


@given(st.data(), st.integers(0, 60), st.integers(1, 12))
def test_what_is_left_out_moves_no_image_to_another_shard(data, total, count):
    images = images_named(total)
    kept = data.draw(st.lists(st.booleans(), min_size=total, max_size=total))
    begin, end = sorted(data.draw(st.tuples(st.integers(0, 70), st.integers(0, 70))))
    selected = [i for i, keep in zip(images, kept, strict=True) if keep][begin:end]
    together = []
    for shard in all_shards(count):
        share = shard.share(images, selected)
        assert share == [i for i in shard.share(images, images) if i in selected]
        together += share
    assert together == selected


def test_chunks_of_several_shards_are_of_all_images():
    images = images_named(8)
    with pytest.raises(ConfigError, match=r"batching=mmf: in shards, .* left out"):
        Shard("", 2, 1).share(images, images[1:], 2)
    assert Shard("a", 1, 0).share(images, images[1:], 2) == images[1:]
    assert Shard("", 2, 1).share(images, images[1:], 1) == images[4:]


@pytest.mark.parametrize(
    ("shard", "name"),
    [
        (Shard("", 1, 0), "0-of-1"),
        (Shard("", 10, 9), "9-of-10"),
        (Shard("", 11, 9), "09-of-11"),
        (Shard("train.5d41402a", 8, 3), "train.5d41402a.3-of-8"),
    ],
)
def test_names(shard, name):
    assert shard.name == name
    assert str(shard) == f"shard {name}"
    assert shard.folder("/out") == Path("/out/shards", name)


@given(st.text(max_size=20), st.integers(1, 2000), st.data())
@example("a\nb", 11, None)
@example("\udcff", 11, None)
def test_names_lead_back_to_their_shards(source, count, data):
    shard = Shard(source, count, data.draw(st.integers(0, count - 1)) if data else 9)
    assert Shard.named(shard.name) == shard


@pytest.mark.parametrize(
    "name",
    [
        *("", "x", "3-of-3", "0-of-0", "3-of-11", "003-of-11", "3-of-08"),
        *(".3-of-8", "train3-of-8", "3-of-8.tmp", "-1-of-8", "\u0663-of-8"),
    ],
)
def test_names_that_are_of_no_shard(name):
    assert Shard.named(name) is None


@pytest.mark.parametrize(
    ("index", "count", "text"),
    [
        (8, 8, "shard_index=8: valid are 0 to 7"),
        (0, 0, "shard_count=0: has to be at least 1"),
    ],
)
def test_numbers_out_of_range(index, count, text):
    with pytest.raises(ConfigError) as caught:
        Shard("", count, index)
    assert str(caught.value) == text


def test_what_is_written_about_a_share():
    digest = hashlib.sha256(b"000\n001\n002").hexdigest()
    share = {"source": "a", "index": 1, "count": 3}
    expected = {**share, "of_images": 3, "of_names_sha256": digest}
    assert Shard("a", 3, 1).describe(images_named(3)) == expected
    Shard().describe([InputImage("/in/\udcff.png", "\udcff")])


def test_the_source_of_a_run_over_lists():
    assert source_name(["lists/a.b.txt"]).startswith("a.b.")
    lists = ["a/x.txt", "b/x.txt", "x.txt", "\udcff/x.txt"]
    names = {source_name([path]) for path in lists} | {source_name(lists), source_name(lists[::-1])}
    assert len(names) == 6
    assert all(Shard.named(Shard(name, 2, 1).name) == Shard(name, 2, 1) for name in names)


def test_the_shards_in_a_folder(tmp_path):
    assert list(shards_in(tmp_path)) == []
    shards = [Shard("", 11, 2), Shard("", 11, 10), Shard("a.b", 2, 0), Shard("a.b", 2, 1)]
    for shard in reversed(shards):
        shard.folder(tmp_path).mkdir(parents=True)
    for name in ("logs", "2-of-2", ".0-of-2", "0-of-2.tmp"):
        (tmp_path / "shards" / name).mkdir()
    (tmp_path / "shards" / "0-of-7").write_text("no folder")
    (tmp_path / "0-of-7").mkdir()
    assert list(shards_in(tmp_path)) == shards
