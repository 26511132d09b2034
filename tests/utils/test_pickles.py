"""Pickles of other programs: torch's tensors become arrays, and nothing gets run."""

import io
import os
import pickle

import numpy as np
import pytest
import support
import torch

from vmb_d2.errors import StoreError
from vmb_d2.utils import safe_pickle as pickles

DTYPES = ("float64", "float32", "float16", "int64", "uint8", "bool")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("protocol", [2, pickle.HIGHEST_PROTOCOL])
def test_tensors_of_every_kind(dtype, protocol):
    whole = (torch.rand((4, 5, 6), generator=torch.manual_seed(0)) * 100).to(getattr(torch, dtype))
    tensors = {
        "whole": whole,
        "part": whole[1:, ::2, 3],
        "turned": whole.permute(2, 0, 1),
        "number": whole[1, 2, 3],
        "none": whole[:0],
        "of no numbers": torch.zeros((0, 4), dtype=whole.dtype),
        "wants gradients": whole.clone().requires_grad_(whole.is_floating_point()),
    }
    found = pickles.loads(pickle.dumps(tensors, protocol))
    for key, tensor in tensors.items():
        assert type(found[key]) is np.ndarray
        assert found[key].dtype == dtype
        assert np.array_equal(found[key], tensor.detach().numpy()), key
        assert found[key].shape == tuple(tensor.shape)
        found[key].fill(0)  # its own memory


class Asks:
    """Pickled, a call of torch's functions with arguments of the tensor's own pickle, changed."""

    def __init__(self, change):
        self.change = change

    def __reduce__(self):
        rebuild, arguments = torch.arange(12.0).reshape(3, 4).__reduce_ex__(2)
        return rebuild, self.change(arguments)


class Storage:
    """Pickled, a storage of these bytes."""

    def __init__(self, content):
        self.content = content

    def __reduce__(self):
        return torch.storage._load_from_bytes, (self.content,)


def content_of_a_storage(zipped=False):
    file = io.BytesIO()
    storage = torch.arange(12.0).__reduce_ex__(2)[1][0]
    torch.save(storage, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


@pytest.mark.parametrize(
    "change",
    [
        lambda a: (a[0], 1, *a[2:]),
        lambda a: (a[0], 0, (3, 5), (4, 1), *a[4:]),
        lambda a: (a[0], 0, (3, 4), (5, 1), *a[4:]),
        lambda a: (a[0], 0, (3, 4), (-4, 1), *a[4:]),
        lambda a: ("numbers", *a[1:]),
        lambda a: (Storage(b""), *a[1:]),
        lambda a: (Storage(content_of_a_storage()[:-1]), *a[1:]),
        lambda a: (Storage(content_of_a_storage(zipped=True)), *a[1:]),
        lambda a: (Storage(content_of_a_storage().replace(b"torch\nFl", b"os\nsystem")), *a[1:]),
        lambda a: (Storage(pickle.dumps(support.Runs("/tmp/made"))), *a[1:]),
    ],
)
def test_tensors_that_are_none(change):
    data = pickle.dumps(Asks(change), 2)
    with pytest.raises(StoreError) as caught:
        pickles.loads(data)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (torch.zeros(3, dtype=torch.bfloat16), "BFloat16"),  # which NumPy lacks
        (torch.nn.Linear(2, 2), "only plain values and NumPy arrays"),
    ],
)
def test_what_else_torch_has_is_refused(value, text):
    with pytest.raises(StoreError, match=text):
        pickles.loads(pickle.dumps(value))


def test_nothing_gets_run(tmp_path):
    path = str(tmp_path / "made")
    for value in (support.Runs(path), [torch.zeros(2), support.Runs(path)]):
        with pytest.raises(StoreError, match=r"posix\.mkdir"):
            pickles.loads(pickle.dumps(value))
    assert not os.path.exists(path)


def test_what_is_written_names_no_module_that_old_numpy_lacks(tmp_path):
    value = {"bbox": np.ones((2, 4), np.float32), "text": "numpy._core.multiarray is only text"}
    content = pickles.dump_npy(value)
    assert b"cnumpy._core" not in content
    assert b"numpy.core.multiarray" in content
    (tmp_path / "x.npy").write_bytes(content)
    found = np.load(tmp_path / "x.npy", allow_pickle=True)
    assert found.shape == ()
    assert found.item()["text"] == value["text"]
    assert np.array_equal(found.item()["bbox"], value["bbox"])
