"""Counts where a GPU would have to be waited for, on the CPU."""

import torch
from detectron2.layers import ROIAlign
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from vmb_d2.modeling.poolers import BagROIAlign
from vmb_d2.structures import batched_nms, box_geometry

# Operators whose result, or its size, the host reads.
READING = {
    "_local_scalar_dense",  # int(tensor), bool(tensor), item()
    "_unique2",
    "equal",
    "masked_select",
    "nms",  # torchvision's
    "nonzero",
    "unique_consecutive",
    "unique_dim",
}

# Calls that copy to the host or from it, or that give the host values, which an operator on the
# CPU doesn't show.
COPYING = {"cpu", "cuda", "new_tensor", "tolist"}
MAKING = {"as_tensor", "tensor"}  # on a device that they name, unless from a tensor


class Waits(TorchFunctionMode):
    """While it is entered, ``names`` collects what a GPU would have to be waited for.

    Not in inference mode, which hides operators. What a GPU computes otherwise than the CPU has to
    be exchanged before, see :func:`as_on_gpu`.
    """

    def __init__(self):
        super().__init__()
        self.names = []
        self._operators = _Operators(self)

    def __enter__(self):
        self._operators.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self._operators.__exit__(*error)

    def add(self, name):
        self.names.append(name)

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name, options = function.__name__, kwargs or {}
        moves = name == "to" and _names_a_device([*args[1:], *options.values()])
        waits = moves and not options.get("non_blocking")
        makes = name in MAKING and options.get("device") is not None
        if name in COPYING or waits or (makes and not isinstance(args[0], torch.Tensor)):
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


def as_on_gpu(monkeypatch, model):
    """Have a model take the ways that it takes on a GPU, on the CPU."""
    monkeypatch.setattr(box_geometry, "kept_in_turn", batched_nms.kept_at_once)
    for module in model.modules():
        if isinstance(module, BagROIAlign):
            monkeypatch.setattr(module, "__class__", ROIAlign)
