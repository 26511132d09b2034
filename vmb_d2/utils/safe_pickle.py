"""Pickles that every NumPy reads, and reading of pickles in which no code is run."""

from __future__ import annotations

import io
import pickle
import pickletools
from typing import IO, Any

import numpy as np

from ..errors import StoreError, first_line

# The package of NumPy's internals in NumPy 2, and its name in NumPy 1, which both know.
_NUMPY_2, _NUMPY_1 = "numpy._core.", "numpy.core."

_MODULES = ("numpy", "numpy.core.multiarray", "numpy.core.numeric")
_HARMLESS = {
    *((module, name) for module in _MODULES for name in ("ndarray", "dtype", "scalar")),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy.core.numeric", "_frombuffer"),
    ("_codecs", "encode"),
    ("collections", "OrderedDict"),
    ("builtins", "bytearray"),
    ("builtins", "set"),
}


class _HarmlessUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str):
        if (module.replace(_NUMPY_2, _NUMPY_1), name) in _HARMLESS:
            return super().find_class(module, name)
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if (module, name) == ("torch.storage", "_load_from_bytes"):
            return _storage
        raise StoreError(
            f"a pickle that asks for {module}.{name}: only plain values and NumPy arrays are read"
        )


def _storage(data: bytes) -> Any:
    """A torch storage from its pickled form, a file of torch's as before version 1.6."""
    import torch

    if not data.startswith(b"\x80"):  # a zip file, which can be a program for torch.jit
        raise StoreError("a torch tensor of an unknown form")
    return torch.load(io.BytesIO(data), weights_only=True)


def _tensor(storage: Any, offset: int, size: tuple, stride: tuple, *_) -> np.ndarray:
    """A tensor as an array of its own. Raises RuntimeError where it reaches out of the storage."""
    import torch

    numbers = torch.empty(0, dtype=storage.dtype).set_(storage)
    return numbers.as_strided(size, stride, offset).numpy().copy()


def dumps(value: Any) -> bytes:
    """Pickle plain values and NumPy arrays so that NumPy before 1.26 reads them too.

    NumPy 2 names a module in its pickles, ``numpy._core``, that those versions don't have.
    """
    data = pickle.dumps(value, protocol=3)
    parts, begin = [], 0
    for opcode, argument, position in pickletools.genops(data):
        if opcode.name == "GLOBAL" and str(argument).startswith(_NUMPY_2):
            assert position is not None
            parts += [data[begin:position], b"c", _NUMPY_1.encode()]
            begin = position + len(b"c") + len(_NUMPY_2)
    return b"".join([*parts, data[begin:]])


def loads(data: bytes) -> Any:
    """:func:`load` of a pickle in memory."""
    return load(io.BytesIO(data))


def dump_npy(value: Any) -> bytes:
    """What ``np.save(file, value)`` makes of a dict, as :func:`dumps` pickles it."""
    file = io.BytesIO()
    header = {"descr": "|O", "fortran_order": False, "shape": ()}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue() + dumps(np.array(value, dtype=object))


def load_npy(file: IO[bytes]) -> Any:
    """An array from the content of an npy file, or the value that a pickled one holds.

    Raises StoreError as :func:`loads` does.
    """
    npy = np.lib.format
    try:
        is_first = npy.read_magic(file) == (1, 0)
        read_header = npy.read_array_header_1_0 if is_first else npy.read_array_header_2_0
        _, _, dtype = read_header(file)
        if not dtype.hasobject:
            file.seek(0)
            return npy.read_array(file, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise StoreError(f"no whole npy file ({first_line(error)})") from error
    value = load(file)
    return value.item() if isinstance(value, np.ndarray) and value.shape == () else value


def load(file: IO[bytes]) -> Any:
    """Unpickle plain values, NumPy arrays, and torch's tensors, which become arrays.

    No code in the pickle is run. Raises StoreError where it is damaged, or holds anything else.
    """
    try:
        return _HarmlessUnpickler(file, encoding="latin1").load()
    except StoreError:
        raise
    except Exception as error:  # a damaged pickle raises anything
        raise StoreError(f"no whole pickle ({first_line(error)})") from error
