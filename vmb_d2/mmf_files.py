"""MMF's files: ``name.npy`` with the features and ``name_info.npy`` with the rest."""

from __future__ import annotations

import io
import os
import pickle
import pickletools
from pathlib import Path

import numpy as np

from .errors import OutputError
from .extractor import RegionFeatures


class MMFWriter:
    """Writes two files an image into a folder, each whole or not at all, the features last.

    Args:
        folder: made if it isn't there.

    Raises:
        OutputError: the folder can't be made or written to.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"output.dir={folder}: {error.strerror}") from error
        if not os.access(self.folder, os.W_OK):
            raise OutputError(f"output.dir={folder}: not writable")

    def is_done(self, name: str) -> bool:
        """Whether both files of an image are there."""
        return self._info(name).exists() and self._features(name).exists()

    def write(self, name: str, regions: RegionFeatures) -> None:
        """Store one image's regions. Raises OutputError; then no part of a file is left."""
        info = {
            "bbox": regions.bbox,
            "num_boxes": regions.num_boxes,
            "objects": regions.objects,
            "cls_prob": regions.cls_prob,
            "image_width": regions.image_width,
            "image_height": regions.image_height,
        }
        features = io.BytesIO()
        np.save(features, regions.features)
        self._write(self._info(name), pickled_npy(info))
        self._write(self._features(name), features.getvalue())

    def _features(self, name: str) -> Path:
        return self.folder / f"{name}.npy"

    def _info(self, name: str) -> Path:
        return self.folder / f"{name}_info.npy"

    def _write(self, path: Path, content: bytes) -> None:
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            temporary.write_bytes(content)
            os.replace(temporary, path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise OutputError(f"{path}: can't be written: {error.strerror}") from error


def read_mmf(folder: str | Path, name: str) -> RegionFeatures:
    """Read an image's two files, as MMF does.

    The info is a pickle, which can run any code: only for files that you trust.
    """
    info = np.load(Path(folder) / f"{name}_info.npy", allow_pickle=True).item()
    return RegionFeatures(features=np.load(Path(folder) / f"{name}.npy"), **info)


def pickled_npy(value: dict) -> bytes:
    """The content of ``np.save(file, value)``, readable by NumPy 1 as well.

    NumPy 2 pickles arrays by a module path, ``numpy._core``, that NumPy before 1.26 doesn't have;
    every version knows the old one.
    """
    data = pickle.dumps(np.array(value, dtype=object), protocol=3)
    parts, begin = [], 0
    for opcode, argument, position in pickletools.genops(data):
        if opcode.name == "GLOBAL" and argument.startswith("numpy._core."):
            parts += [data[begin:position], b"cnumpy.core."]
            begin = position + len(b"cnumpy._core.")
    file = io.BytesIO()
    header = {"descr": "|O", "fortran_order": False, "shape": ()}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue() + b"".join([*parts, data[begin:]])
