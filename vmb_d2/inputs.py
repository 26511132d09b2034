"""Which images a run is about, and in which batches."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import InputError

EXTENSIONS = (".png", ".jpg", ".jpeg")

Size = tuple[int, int]


def output_name(path: str | Path) -> str:
    """The name under which MMF stores an image: the file's name up to its first dot."""
    return os.path.basename(path).split(".")[0]


def list_images(source: str | Path) -> list[str]:
    """Image files directly in a folder, sorted by path; or the one file that ``source`` is.

    Raises:
        InputError: no such path, it can't be read, or no image is in it.
    """
    source = os.fspath(source)
    if os.path.isfile(source):
        return [source]
    try:
        with os.scandir(source) as entries:
            names = [e.name for e in entries if _is_image_name(e.name) and e.is_file()]
    except OSError as error:
        raise InputError(f"input.dir={source}: {error.strerror}") from error
    if not names:
        raise InputError(f"input.dir={source}: no {', '.join(EXTENSIONS)} file in it")
    return sorted(os.path.join(source, name) for name in names)


def _is_image_name(name: str) -> bool:
    return name.lower().endswith(EXTENSIONS) and not name.startswith(".")


def read_exclude_list(path: str | Path) -> set[str]:
    """Output names from a text file with a name or path a line. Raises InputError."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"input.exclude_list={path}: {reason}") from error
    return {output_name(line.strip()) for line in lines if line.strip()}


def select_images(
    paths: Sequence[str], exclude: set[str] = frozenset(), start: int = 0, end: int | None = None
) -> list[str]:
    """``paths`` less those excluded by output name, then ``[start:end]`` of the rest.

    Raises InputError where two of the result would be stored in one file.
    """
    selected = [path for path in paths if output_name(path) not in exclude][start:end]
    owners: dict[str, str] = {}
    for path in selected:
        for name in (output_name(path), f"{output_name(path)}_info"):
            other = owners.setdefault(name, path)
            if other != path:
                raise InputError(
                    f"{other} and {path} would both be stored as {name}.npy (a name ends at its "
                    "first dot); rename one or put it in input.exclude_list"
                )
    return selected


@dataclass(frozen=True)
class Batch:
    """Images that go through the network together.

    Attributes:
        paths: of the images.
        padded_size: (height, width) in network pixels to which each is padded.
    """

    paths: list[str]
    padded_size: Size


def bucketed_batches(
    paths: Iterable[str], batch_size: int, padded_size_of: Callable[[str], Size | None]
) -> Iterator[Batch]:
    """Batches of images that have the same padded size.

    A batch comes as soon as ``batch_size`` images of its size were seen; the rest, in order of
    first appearance, at the end. Images whose size is None are left out.
    """
    buckets: dict[Size, list[str]] = {}
    for path in paths:
        size = padded_size_of(path)
        if size is None:
            continue
        bucket = buckets.setdefault(size, [])
        bucket.append(path)
        if len(bucket) == batch_size:
            yield Batch(buckets.pop(size), size)
    for size, bucket in buckets.items():
        yield Batch(bucket, size)


def mmf_batches(
    paths: Sequence[str],
    batch_size: int,
    padded_size_of: Callable[[str], Size | None],
    is_wanted: Callable[[str], bool] = lambda path: True,
) -> Iterator[Batch]:
    """MMF's batches: chunks of ``paths`` in order, padded to the largest of the chunk.

    Images that are not wanted are left out of the batch but keep their place in the chunk and
    their say in its size, so that what is done already never changes what is left. Images whose
    size is None are left out without a say.
    """
    for begin in range(0, len(paths), batch_size):
        chunk = paths[begin : begin + batch_size]
        if not any(map(is_wanted, chunk)):
            continue
        sizes = {path: padded_size_of(path) for path in chunk}
        known = [size for size in sizes.values() if size is not None]
        wanted = [path for path in chunk if sizes[path] is not None and is_wanted(path)]
        if wanted:
            yield Batch(wanted, (max(h for h, _ in known), max(w for _, w in known)))
