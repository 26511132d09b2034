"""How often a GPU is waited for is seen on the CPU, or the tests that count it could not fail."""

import pytest
import torch
from waits import Waits

VALUES = torch.arange(4.0)

WAITS = {
    "int": lambda: int(VALUES.sum()),
    "if": lambda: 1 if (VALUES > 1).any() else 0,
    "item": lambda: VALUES[0].item(),
    "an index": lambda: [0, 1][torch.zeros((), dtype=torch.int64)],
    "nonzero": lambda: VALUES.nonzero(),
    "where": lambda: torch.where(VALUES > 1),
    "a mask": lambda: VALUES[VALUES > 1],
    "a mask to set": lambda: VALUES.clone().__setitem__(VALUES > 1, 2.0),
    "masked_select": lambda: VALUES.masked_select(VALUES > 1),
    "a list as index": lambda: VALUES[[0, 1]],
    "tolist": lambda: VALUES.tolist(),
    "cpu": lambda: VALUES.cpu(),
    "to": lambda: VALUES.to("cpu"),
    "to, by keyword": lambda: VALUES.to(device=torch.device("cpu")),
    "numpy": lambda: VALUES.numpy(),
    "tensor": lambda: torch.tensor([1]),
    "new_tensor": lambda: VALUES.new_tensor([1]),
    "equal": lambda: torch.equal(VALUES, VALUES),
    "unique": lambda: VALUES.unique(),
    "repeat_interleave": lambda: VALUES.repeat_interleave(VALUES.long()),
}

NO_WAITS = {
    "arithmetic": lambda: (VALUES > 1).sum() + VALUES.argsort()[:2],
    "rows": lambda: [VALUES[VALUES.long()], VALUES.index_select(0, VALUES.long()), *VALUES],
    "to a dtype": lambda: VALUES.to(torch.float64).float(),
    "where of three": lambda: torch.where(VALUES > 1, VALUES, 0.0),
    "length": lambda: [len(VALUES), VALUES.shape[0]],
}


@pytest.mark.parametrize("name", [*WAITS, *NO_WAITS])
def test_each_is_seen_once(name):
    with torch.no_grad(), Waits() as waits:
        {**WAITS, **NO_WAITS}[name]()
    assert len(waits.names) == (name in WAITS)


def test_a_part_that_counts_as_one():
    with torch.no_grad(), Waits() as waits:
        with waits.counted_as("a part"):
            VALUES.tolist()
            VALUES.nonzero()
        VALUES.cpu()
    assert waits.names == ["a part", "cpu"]
    VALUES.cpu()
    assert len(waits.names) == 2
