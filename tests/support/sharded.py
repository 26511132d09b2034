"""Output folders as shards leave them."""

import json
import os

import pytest
import support
from fakes import FakeExtractor
from jobs import run
from store_files import kept, write

from vmb_d2.errors import StoreError
from vmb_d2.output.shards import Shard
from vmb_d2.stores import FORMATS

PARTS = [
    {"a": support.some_regions(1), "sub/b": support.some_regions(2, count=1)},
    {"sub/c": support.some_regions(3), "d": support.some_regions(4), "e": support.some_regions(5)},
    {"f": support.some_regions(6)},
]

THREE_PARTS = [
    {f"{part}/x{i}": support.some_regions(10 * part + i) for i in range(4)} for part in range(3)
]


def place(out, index, count, format_name, feature="."):
    """Where a shard's store is."""
    return Shard("", count, index).folder(out) / feature / FORMATS[format_name].place


def write_shards(out, format_name, parts, feature="."):
    """A store for each of the parts, images by name. Returns the output folder."""
    for index, images in enumerate(parts):
        write(place(out, index, len(parts), format_name, feature), format_name, images)
        (out / feature).mkdir(exist_ok=True)
    return out


def note(out, index, count, state="finished", done=1, stores=(), settings=None, source=""):
    """A shard's manifest, with stores given as (format, feature)."""
    folder = Shard(source, count, index).folder(out)
    folder.mkdir(parents=True, exist_ok=True)
    below = folder.relative_to(out)
    content = {
        "settings": settings or {},
        "stores": [
            {
                "format": name,
                "feature": feature,
                "path": (below / (feature or ".") / FORMATS[name].place).as_posix(),
            }
            for name, feature in stores
        ],
        "counts": {"images": done, "done": done, "failed": 0},
        "runs": [{"state": state, "started": "2026-01-01T00:00:00+00:00"}],
    }
    (folder / "manifest.json").write_text(json.dumps(content))


def three_finished(out):
    """Make an output folder of three finished shards, without stores."""
    for index in range(3):
        note(out, index, 3)
    return out


def together(parts):
    """The first one's image of each name."""
    return {name: regions for part in reversed(parts) for name, regions in part.items()}


def check(reader, format_name, images):
    """It holds exactly these images, as the format keeps them."""
    assert sorted(reader.names()) == sorted(images)
    assert len(reader) == len(images)
    for image, regions in images.items():
        assert image in reader
        support.assert_same_regions(reader.read(image), kept(regions, format_name))
    for image in ("sub", "g", "a/b", ""):
        assert image not in reader
        with pytest.raises(StoreError, match=f"has no image '{image}'"):
            reader.read(image)


def files_open():
    return len(os.listdir("/proc/self/fd"))


def shards(count):
    return [Shard("", count, index) for index in range(count)]


def extract(folder, images, formats, shard=None, seed=0, **options):
    """Run an extraction without a network, or one of its shards."""
    return run(folder, images, FakeExtractor(seed, **options), shard, formats=formats)
