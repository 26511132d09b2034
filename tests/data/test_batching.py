"""Which images share a batch, and what size each is padded to."""

from hypothesis import given
from hypothesis import strategies as st

from vmb_d2.data.batching import bucketed_batches, mmf_batches

SIZES = [(800, 800), (800, 1216), (1216, 800)]


@given(st.lists(st.sampled_from([*SIZES, None]), max_size=30), st.integers(1, 6))
def test_bucketed_batches(sizes, batch_size):
    size_of = {f"{i}": size for i, size in enumerate(sizes)}
    batches = list(bucketed_batches(list(size_of), batch_size, size_of.get))
    batched = [path for batch in batches for path in batch.images]
    assert sorted(batched) == sorted(p for p, s in size_of.items() if s)
    for batch in batches:
        assert 1 <= len(batch.images) <= batch_size
        assert {size_of[p] for p in batch.images} == {batch.padded_size}
    partial = [b.padded_size for b in batches if len(b.images) < batch_size]
    assert len(partial) == len(set(partial))


def test_buckets_hold_no_more_than_a_batch():
    """What is waiting stays bounded: a full bucket leaves before the next image is looked at."""
    looked_at = []

    def size_of(path):
        looked_at.append(path)
        return SIZES[0]

    batches = bucketed_batches(map(str, range(1000)), 3, size_of)
    next(batches)
    assert len(looked_at) == 3


@given(st.lists(st.sampled_from([*SIZES, None]), max_size=30), st.integers(1, 6), st.data())
def test_mmf_batches(sizes, batch_size, data):
    size_of = {f"{i}": size for i, size in enumerate(sizes)}
    paths = list(size_of)
    whole = list(mmf_batches(paths, batch_size, size_of.get))
    padded = {path: batch.padded_size for batch in whole for path in batch.images}
    for begin in range(0, len(paths), batch_size):
        known = [size_of[p] for p in paths[begin : begin + batch_size] if size_of[p]]
        for path in paths[begin : begin + batch_size]:
            if size_of[path]:
                assert padded.pop(path) == (max(h for h, _ in known), max(w for _, w in known))
    assert not padded
    # What is wanted is padded as in the whole run, whatever else is left out.
    wanted = data.draw(st.sets(st.sampled_from(paths))) if paths else set()
    part = list(mmf_batches(paths, batch_size, size_of.get, wanted.__contains__))
    left = {path: batch.padded_size for batch in part for path in batch.images}
    expected = {path: batch.padded_size for batch in whole for path in batch.images}
    assert left == {path: size for path, size in expected.items() if path in wanted}
