"""Pickles that every NumPy reads, and reading of pickles in which no code is run."""

from __future__ import annotations

import io
import math
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

# Of each of torch's storages, the dtype.
_STORAGES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "BoolStorage": "|b1",
}
_STORAGE_MAGIC = 0x1950A86A20F9469CFC6C


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


class _StorageUnpickler(pickle.Unpickler):
    """Reads what precedes the numbers in a pickled storage: plain values, and the dtype."""

    def find_class(self, module: str, name: str):
        if module == "torch" and name in _STORAGES:
            return np.dtype(_STORAGES[name])
        raise StoreError(f"a torch tensor of {module}.{name}, which isn't read")

    def persistent_load(self, reference: Any) -> Any:
        return reference


def _storage(data: bytes) -> np.ndarray:
    """A storage's numbers, from its pickled form, which is torch's file format before 1.6."""
    file = io.BytesIO(data)
    magic, _version, _system, reference, _keys = (_next_pickle(file) for _ in range(5))
    if magic != _STORAGE_MAGIC or reference[0] != "storage":
        raise StoreError("a torch tensor of an unknown form")
    count = int.from_bytes(file.read(8), "little")
    return np.frombuffer(file.read(), reference[1], count)


def _next_pickle(file: io.BytesIO) -> Any:
    begin = file.tell()
    _check_table(file)
    file.seek(begin)
    return _StorageUnpickler(file).load()


def _tensor(storage: np.ndarray, offset: int, size: tuple, stride: tuple, *_) -> np.ndarray:
    """A tensor as an array of its own."""
    if math.prod(size) > storage.size:
        raise StoreError("a torch tensor larger than what it is stored in")
    offset, *strides = (step * storage.itemsize for step in (offset, *stride))
    return np.ndarray(size, storage.dtype, storage, offset, strides).copy()


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
    """Unpickle plain values, NumPy arrays, and torch's tensors, which become arrays.

    No code in the pickle is run. Raises StoreError where it is damaged, or holds anything else.
    """
    return _load(io.BytesIO(data))


def dump_npy(value: Any) -> bytes:
    """What ``np.save(file, value)`` makes of a dict, as :func:`dumps` pickles it."""
    file = io.BytesIO()
    header = {"descr": "|O", "fortran_order": False, "shape": ()}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue() + dumps(np.array(value, dtype=object))


def read_npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape of an npy file's array, whether it is in Fortran's order, and its dtype.

    Raises ValueError or EOFError where it is no npy file.
    """
    if np.lib.format.read_magic(file) == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    return np.lib.format.read_array_header_2_0(file)


def load_npy(file: IO[bytes]) -> Any:
    """An array from the content of an npy file, or the value that a pickled one holds.

    Raises StoreError as :func:`loads` does.
    """
    try:
        shape, _, dtype = read_npy_header(file)
        if not dtype.hasobject:
            file.seek(0)
            return np.lib.format.read_array(file, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise StoreError(f"no whole npy file ({first_line(error)})") from error
    value = _load(file)
    return value.item() if shape == () and isinstance(value, np.ndarray) else value


def _load(file: IO[bytes]) -> Any:
    data = file.read()
    try:
        _check_table(io.BytesIO(data))
        return _HarmlessUnpickler(io.BytesIO(data), encoding="latin1").load()
    except StoreError:
        raise
    except Exception as error:  # a damaged pickle raises anything
        raise StoreError(f"no whole pickle ({first_line(error)})") from error


def _check_table(file: io.BytesIO) -> None:
    """Raise StoreError where the next pickle would allocate a table larger than itself."""
    size = len(file.getbuffer())
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name == "LONG_BINPUT" and int(argument or 0) > size:
            raise StoreError("a pickle that asks for a table larger than itself")
