"""Arrays in pieces come to the host: from a GPU, here made believe, together."""

import numpy as np
import pytest
import torch

from vmb_d2.selection.host import to_host


class OnGPU(torch.Tensor):
    """Can't be read; a copy of it has its values once its stream has been waited for."""

    @property
    def device(self):
        return torch.device("cuda", 1)

    def numpy(self):
        raise AssertionError("read on the GPU")

    def to(self, device, non_blocking):
        assert (device, non_blocking) == ("cpu", True)
        values = self.as_subclass(torch.Tensor)
        copy = torch.zeros_like(values)
        Stream.coming.append((copy, values))
        Stream.copies.append(copy)
        return copy


class Stream:
    """Of the GPU."""

    coming, copies, waited = [], [], []

    def __init__(self, device):
        self._device = device

    def synchronize(self):
        self.waited.append(self._device)
        for copy, values in self.coming:
            copy.copy_(values)
        self.coming.clear()


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    for made in (Stream.coming, Stream.copies, Stream.waited):
        made.clear()
    return Stream


def arrays():
    """Three, in pieces of 2, 0 and 3 rows."""
    generator = torch.Generator().manual_seed(0)
    return [
        [torch.rand(2, 4, generator=generator), torch.zeros(0, 4), torch.ones(3, 4)],
        [torch.tensor([5, 6]), torch.zeros(0, dtype=torch.int64), torch.tensor([7, 8, 9])],
        [torch.rand(n, 6, generator=generator)[:, :-1] for n in (2, 0, 3)],  # not contiguous
    ]


def check(found, expected):
    assert len(found) == len(expected)
    for pieces, tensors in zip(found, expected, strict=True):
        for piece, tensor in zip(pieces, tensors, strict=True):
            values = tensor.as_subclass(torch.Tensor).numpy()
            assert piece.dtype == values.dtype
            np.testing.assert_array_equal(piece, values, strict=True)


def test_on_the_host_nothing_is_copied(gpu):
    given = arrays()
    found = to_host(given)
    check(found, given)
    for pieces, tensors in zip(found, given, strict=True):
        assert np.shares_memory(pieces[0], tensors[0].numpy())
    assert gpu.copies == gpu.waited == []
    assert to_host([[], []]) == [[], []]


def test_from_a_gpu_each_array_is_one_copy_and_all_are_waited_for_once(gpu):
    given = [[piece.as_subclass(OnGPU) for piece in pieces] for pieces in arrays()]
    found = to_host(given)
    check(found, given)
    assert [len(copy) for copy in gpu.copies] == [5, 5, 5]
    assert gpu.waited == [torch.device("cuda", 1)]


def test_pieces_from_a_gpu_hold_on_to_nothing(gpu):
    """Neither to the copy, which is in pinned memory, nor to another piece."""
    found = to_host([[piece.as_subclass(OnGPU) for piece in pieces] for pieces in arrays()])
    for piece in (piece for pieces in found for piece in pieces):
        assert piece.flags.owndata
        assert piece.flags.c_contiguous


def test_some_on_the_host_already(gpu):
    """As given boxes are."""
    on_gpu, here, _ = arrays()
    found = to_host([[piece.as_subclass(OnGPU) for piece in on_gpu], here])
    check(found, [on_gpu, here])
    assert len(gpu.copies) == len(gpu.waited) == 1
    assert np.shares_memory(found[1][0], here[0].numpy())
