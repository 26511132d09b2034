"""The images of a benchmark, and the folders that it writes into."""

from __future__ import annotations

import contextlib
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from vmb_d2.data.preprocessing import read_padded_size
from vmb_d2.errors import OutputError
from vmb_d2.structures.input_image import InputImage


def repeated(images: Sequence[InputImage], count: int) -> list[InputImage]:
    """``count`` images: those given over and over, each time under another name."""
    rounds = (divmod(i, len(images)) for i in range(count))
    return [InputImage(images[i].path, f"{images[i].name}_{r}") for r, i in rounds]


def padded_sizes(images: Sequence[InputImage]) -> dict[str, int]:
    """How many images have which padded size, as ``"800x1216"``: height x width."""
    sizes = {path: read_padded_size(path) for path in {image.path for image in images}}
    return dict(Counter("{}x{}".format(*sizes[image.path]) for image in images))


@contextlib.contextmanager
def temporary_folder(below: str | Path | None) -> Iterator[Path]:
    """A folder that is gone afterwards.

    Args:
        below: where to make it; None for where the system has its temporary files.

    Raises OutputError where it can't be made.
    """
    try:
        folder = tempfile.TemporaryDirectory(prefix="vmb_d2_benchmark_", dir=below)
    except OSError as error:
        raise OutputError(f"--temporary={below}: {error.strerror}") from error
    with folder as path:
        yield Path(path)
