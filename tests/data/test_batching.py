"""Which images share a batch, and what size each is padded to."""

import itertools
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmb_d2.data import batching
from vmb_d2.data.batching import Batching, bucketed_batches, planned_batches, read_sizes
from vmb_d2.errors import ConfigError, ImageReadError
from vmb_d2.structures.input_image import InputImage

SIZES = [(800, 800), (800, 1216), (1216, 800)]

sizes_of_images = st.lists(st.sampled_from([*SIZES, None]), max_size=30)


def batches_of(images, pending, kind, batch_size, size_of):
    group = Batching(kind, batch_size)
    sized = ((image, size_of[image]) for image in group.sized_images(images, pending))
    return list(group.batches(sized, pending))


@pytest.mark.parametrize("kind", ["bucketed", "mmf"])
@pytest.mark.parametrize(("value", "expected"), [(1, 1), (64, 64), ("8", 8)])
def test_batch_sizes(kind, value, expected):
    assert Batching(kind, value).most == expected


@pytest.mark.parametrize(
    "value", [0, -3, 2.5, 2.0, True, False, None, "0", "2.5", "big", "", "AUTO", [1], ["auto"]]
)
def test_values_that_are_no_batch_size(value):
    with pytest.raises(ConfigError) as caught:
        Batching(batch_size=value)
    text = f"batch_size={value}: has to be a whole number, at least 1, or auto"
    assert str(caught.value) == text


def test_other_values():
    with pytest.raises(ConfigError, match=r"^batching=all: valid are bucketed, mmf$"):
        Batching("all")
    assert Batching(batch_size="auto").is_auto
    with pytest.raises(ConfigError, match=r"^batch_size=auto: .* or take batching=bucketed$"):
        Batching("mmf", "auto")


@pytest.mark.parametrize("group", [Batching(), Batching("mmf", 1), Batching("mmf", 12)])
def test_the_manifests_text_is_read_back(group):
    assert Batching.of_manifest(str(group)) == group


@given(sizes_of_images, st.integers(1, 6))
def test_bucketed_batches(sizes, batch_size):
    size_of = dict(enumerate(sizes))
    batches = batches_of(list(size_of), list(size_of), "bucketed", batch_size, size_of)
    batched = [image for batch in batches for image in batch.images]
    assert sorted(batched) == [image for image, size in size_of.items() if size]
    for batch in batches:
        assert 1 <= len(batch.images) <= batch_size
        assert {size_of[image] for image in batch.images} == {batch.padded_size}
    partial = [b.padded_size for b in batches if len(b.images) < batch_size]
    assert len(partial) == len(set(partial))


def test_buckets_hold_no_more_than_a_batch():
    """A full bucket leaves before the next image is looked at."""
    numbers = itertools.count()
    next(bucketed_batches(numbers, 3, lambda image: SIZES[0]))
    assert next(numbers) == 3


@given(sizes_of_images, st.integers(1, 6), st.data())
def test_mmf_batches(sizes, batch_size, data):
    size_of = dict(enumerate(sizes))
    images = list(size_of)
    whole = batches_of(images, images, "mmf", batch_size, size_of)
    padded = {image: batch.padded_size for batch in whole for image in batch.images}
    expected = {}
    for begin in range(0, len(images), batch_size):
        chunk = [image for image in images[begin : begin + batch_size] if size_of[image]]
        known = [size_of[image] for image in chunk]
        for image in chunk:
            expected[image] = (max(h for h, _ in known), max(w for _, w in known))
    assert padded == expected
    # A pending image is padded as in the whole run, whatever else is done already.
    pending = sorted(data.draw(st.sets(st.sampled_from(images)))) if images else []
    part = batches_of(images, pending, "mmf", batch_size, size_of)
    left = {image: batch.padded_size for batch in part for image in batch.images}
    assert left == {image: size for image, size in expected.items() if image in pending}


@pytest.mark.parametrize("kind", ["bucketed", "mmf"])
@pytest.mark.parametrize("ahead", [False, True])
def test_an_image_without_a_header_fails_and_the_others_dont(monkeypatch, kind, ahead):
    def read(path):
        if path in "14":
            raise ImageReadError(path)
        return SIZES[0]

    monkeypatch.setattr(batching.preprocessing, "read_padded_size", read)
    images = [InputImage(str(i), f"name {i}") for i in range(6)]
    failed = []
    batches = planned_batches(
        images,
        images[2:],
        Batching(kind, 2),
        ahead=ahead,
        fail=lambda image, error: failed.append((image, str(error))),
    )
    batched = [image for batch in batches for image in batch.images]
    assert batched == [images[2], images[3], images[5]]
    assert failed == [(images[4], "4")]  # not 1, which isn't pending


@given(st.lists(st.integers(-3, 9), max_size=30), st.integers(0, 3), st.integers(1, 5))
def test_sizes_come_in_order_with_errors_in_their_place(numbers, threads, ahead):
    def read(path):
        if int(path) < 0:
            raise ImageReadError(path)
        return int(path), 0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batching.preprocessing, "read_padded_size", read)
        found = list(read_sizes(map(str, numbers), threads, ahead))
    for number, size in zip(numbers, found, strict=True):
        if number < 0:
            assert isinstance(size, ImageReadError)
            assert str(size) == str(number)
        else:
            assert size == (number, 0)


@pytest.mark.parametrize(("threads", "ahead"), [(0, 0), (2, 5)])
def test_sizes_are_read_ahead_up_to_a_limit(monkeypatch, threads, ahead):
    read = threading.Semaphore(0)
    monkeypatch.setattr(batching.preprocessing, "read_padded_size", lambda path: read.release())
    sizes = read_sizes(map(str, range(1000)), threads, ahead)
    next(sizes)
    for _ in range(1 + ahead):
        assert read.acquire(timeout=10)
    time.sleep(0.05)
    assert not read.acquire(blocking=False)
    sizes.close()
