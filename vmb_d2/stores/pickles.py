"""Pickles as the formats need them: read by every NumPy when written, harmless when read."""

from __future__ import annotations

import io
import pickle
import pickletools
from typing import Any, BinaryIO

import numpy as np

from ..errors import StoreError, first_line

# Where NumPy 2 has its internals, and where NumPy 1 had them. Every version knows the old place.
_NEW_HOME, _OLD_HOME = "numpy._core.", "numpy.core."

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
        if (module.replace(_NEW_HOME, _OLD_HOME), name) in _HARMLESS:
            return super().find_class(module, name)
        raise StoreError(
            f"a pickle that asks for {module}.{name}: only plain values and NumPy arrays are read"
        )


def dumps(value: Any) -> bytes:
    """Pickle plain values and NumPy arrays so that NumPy before 1.26 reads them too.

    NumPy 2 names a module in its pickles, ``numpy._core``, that those versions don't have.
    """
    data = pickle.dumps(value, protocol=3)
    parts, begin = [], 0
    for opcode, argument, position in pickletools.genops(data):
        if opcode.name == "GLOBAL" and argument.startswith(_NEW_HOME):
            parts += [data[begin:position], b"c", _OLD_HOME.encode()]
            begin = position + len(b"c") + len(_NEW_HOME)
    return b"".join([*parts, data[begin:]])


def loads(data: bytes) -> Any:
    """Unpickle plain values and NumPy arrays; nothing that is in the pickle gets run.

    Raises StoreError where it is damaged, or asks for anything else.
    """
    return _load(io.BytesIO(data))


def dump_npy(value: Any) -> bytes:
    """What ``np.save(file, value)`` makes of a dict, as :func:`dumps` pickles it."""
    file = io.BytesIO()
    header = {"descr": "|O", "fortran_order": False, "shape": ()}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue() + dumps(np.array(value, dtype=object))


def read_npy_header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape of an npy file's array, whether it is in Fortran's order, and its dtype.

    Raises ValueError or EOFError where it is no npy file.
    """
    if np.lib.format.read_magic(file) == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    return np.lib.format.read_array_header_2_0(file)


def load_npy(file: BinaryIO) -> Any:
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


def _load(file: BinaryIO) -> Any:
    data = file.read()
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name == "LONG_BINPUT" and argument > len(data):
                raise StoreError("a pickle that asks for a table larger than itself")
        return _HarmlessUnpickler(io.BytesIO(data), encoding="latin1").load()
    except StoreError:
        raise
    except Exception as error:  # a damaged pickle raises anything
        raise StoreError(f"no whole pickle ({first_line(error)})") from error
