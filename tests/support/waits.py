"""Counts where a GPU would have to be waited for, on the CPU."""

import contextlib

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

# Operators whose result, or its size, the host reads.
READING = {
    "_local_scalar_dense",  # int(tensor), bool(tensor), item()
    "_unique2",
    "equal",
    "masked_select",
    "nonzero",
    "unique_consecutive",
    "unique_dim",
}

# Calls that copy to the host or from it, or that give the host values, which an operator on the
# CPU doesn't show.
COPYING = {"as_tensor", "cpu", "cuda", "from_numpy", "new_tensor", "numpy", "tensor", "tolist"}


class Waits(TorchFunctionMode):
    """While it is entered, ``names`` collects what a GPU would have to be waited for.

    Not in inference mode, which hides operators.
    """

    def __init__(self):
        super().__init__()
        self.names = []
        self._paused = False
        self._operators = _Operators(self)

    def __enter__(self):
        self._operators.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self._operators.__exit__(*error)

    def add(self, name):
        if not self._paused:
            self.names.append(name)

    @contextlib.contextmanager
    def counted_as(self, name):
        """What is waited for within counts once."""
        self.add(name)
        before, self._paused = self._paused, True
        try:
            yield
        finally:
            self._paused = before

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name = function.__name__
        moves = name == "to" and _names_a_device([*args[1:], *(kwargs or {}).values()])
        if name in COPYING or moves:
            self.add(name)
        if name in ("__getitem__", "__setitem__"):
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            if any(isinstance(part, list) for part in index):
                self.add("index of a list")
        return function(*args, **(kwargs or {}))


class _Operators(TorchDispatchMode):
    def __init__(self, waits):
        super().__init__()
        self._waits = waits

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if name in READING:
            self._waits.add(name)
        if name.startswith(("index", "_index_put")) and any(map(_is_mask, _flat(args[1:2]))):
            self._waits.add("index of a mask")
        if name == "repeat_interleave" and "output_size" not in (kwargs or {}):
            self._waits.add(name)
        return function(*args, **(kwargs or {}))


def _names_a_device(arguments):
    return any(isinstance(a, (str, torch.device)) for a in arguments)


def _flat(arguments):
    for a in arguments:
        yield from a if isinstance(a, (list, tuple)) else [a]


def _is_mask(value):
    return isinstance(value, torch.Tensor) and value.dtype in (torch.bool, torch.uint8)
