"""Which images share a batch, and what size each is padded to."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmb_d2.data import batching
from vmb_d2.data.batching import Batching, bucketed_batches, planned_batches
from vmb_d2.errors import ConfigError, ImageReadError
from vmb_d2.structures.input_image import InputImage

SIZES = [(800, 800), (800, 1216), (1216, 800)]

sizes_of_images = st.lists(st.sampled_from([*SIZES, None]), max_size=80)


def batches_of(sizes, pending, kind, batch_size):
    """The batches, of numbers of images, and the numbers of those that failed.

    Args:
        sizes: of all images; None where the header can't be read.
        pending: numbers of images.
    """

    def read(path, step):
        if sizes[int(path)] is None:
            raise ImageReadError(path)
        return sizes[int(path)]

    images = [InputImage(str(i), f"name {i}") for i in range(len(sizes))]
    failed = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batching.preprocessing, "read_padded_size", read)
        batches = planned_batches(
            images,
            [images[i] for i in pending],
            Batching(kind, batch_size),
            fail=lambda image, error: failed.append(int(str(error))),
        )
        found = [([int(i.path) for i in batch.images], batch.padded_size) for batch in batches]
    return found, failed


@pytest.mark.parametrize("kind", ["bucketed", "mmf"])
@pytest.mark.parametrize(("value", "expected"), [(1, 1), ("8", 8)])
def test_batch_sizes(kind, value, expected):
    assert Batching(kind, value).most == expected


@pytest.mark.parametrize("value", [0, -3, 2.0, True, None, "0", "big", ["auto"]])
def test_values_that_are_no_batch_size(value):
    with pytest.raises(ConfigError) as caught:
        Batching(batch_size=value)
    text = f"batch_size={value}: has to be a whole number, at least 1, or auto"
    assert str(caught.value) == text


def test_other_values():
    with pytest.raises(ConfigError, match=r"^batching=all: valid are bucketed, mmf$"):
        Batching("all")
    assert Batching(batch_size="auto").is_auto
    with pytest.raises(ConfigError, match=r"^batch_size=auto: has to be a number"):
        Batching("mmf", "auto")


@pytest.mark.parametrize("group", [Batching(), Batching("mmf", 1), Batching("mmf", 12)])
def test_the_manifests_text_is_read_back(group):
    assert Batching.of_manifest(str(group)) == group


@given(sizes_of_images, st.integers(1, 6), st.data())
def test_bucketed_batches(sizes, batch_size, data):
    numbers = range(len(sizes))
    pending = sorted(data.draw(st.sets(st.sampled_from(numbers)))) if sizes else []
    batches, failed = batches_of(sizes, pending, "bucketed", batch_size)
    batched = [image for images, _ in batches for image in images]
    assert sorted(batched) == [image for image in pending if sizes[image]]
    assert failed == [image for image in pending if not sizes[image]]
    for images, padded_size in batches:
        assert 1 <= len(images) <= batch_size
        assert {sizes[image] for image in images} == {padded_size}
    partial = [size for images, size in batches if len(images) < batch_size]
    assert len(partial) == len(set(partial))


def test_buckets_hold_no_more_than_a_batch():
    """A full bucket leaves before the next image is looked at."""
    numbers = itertools.count()
    next(bucketed_batches(numbers, 3, lambda image: SIZES[0]))
    assert next(numbers) == 3


@given(sizes_of_images, st.integers(1, 6), st.data())
def test_mmf_batches(sizes, batch_size, data):
    """A pending image is padded as in the whole run, whatever else is done already."""
    numbers = range(len(sizes))
    pending = sorted(data.draw(st.sets(st.sampled_from(numbers)))) if sizes else []
    expected = {}
    for begin in range(0, len(sizes), batch_size):
        known = [image for image in numbers[begin : begin + batch_size] if sizes[image]]
        for image in known:
            expected[image] = (
                max(sizes[i][0] for i in known),
                max(sizes[i][1] for i in known),
            )
    batches, failed = batches_of(sizes, pending, "mmf", batch_size)
    padded = {image: padded_size for images, padded_size in batches for image in images}
    assert padded == {image: expected[image] for image in pending if image in expected}
    assert failed == [image for image in pending if not sizes[image]]
    assert all(len({image // batch_size for image in images}) == 1 for images, _ in batches)
