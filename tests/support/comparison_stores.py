"""Stores in memory, and what can be done to a store's regions."""

import dataclasses

import numpy as np
from support import some_regions

from vmb_d2.comparison import Settings, as_dict, compare
from vmb_d2.config.input_step import MMF_INPUT
from vmb_d2.stores import FeatureReader

SIZES = ((640, 427), (500, 600), (1333, 500))  # width, height


class MemoryStore(FeatureReader):
    """Regions by name."""

    def __init__(self, regions, path="memory"):
        super().__init__(path)
        self.regions = regions

    def names(self):
        return iter(self.regions)

    def __len__(self):
        return len(self.regions)

    def __contains__(self, name):
        return name in self.regions

    def read(self, name):
        return self.regions[name]


def relu_like(seed, count, dimension=32):
    """Features of which about half are 0."""
    rng = np.random.default_rng([seed, 7])
    return rng.standard_normal((count, dimension)).clip(min=0).astype(np.float32)


def images(count=6, regions=40, seed=0):
    """Regions of some images, by name."""
    return {
        f"image_{i}": some_regions(
            seed=100 * seed + i,
            count=regions,
            num_boxes=regions,
            features=relu_like(100 * seed + i, regions),
            image_width=SIZES[i % 3][0],
            image_height=SIZES[i % 3][1],
        )
        for i in range(count)
    }


def changed(regions, **values):
    """The regions with some fields other; ``objects_conf`` follows."""
    return dataclasses.replace(regions, objects_conf=None, **values)


def every(store, change):
    """The store with each image's regions changed."""
    return {name: change(regions) for name, regions in store.items()}


def rows(regions, index):
    """Some of the regions, in the order of ``index``."""
    return changed(
        regions,
        features=regions.features[index],
        bbox=regions.bbox[index],
        objects=regions.objects[index],
        cls_prob=regions.cls_prob[index],
        num_boxes=min(regions.num_boxes, len(index)),
    )


def boxes(regions, function):
    """The regions with other boxes."""
    return changed(regions, bbox=np.asarray(function(regions.bbox), dtype=np.float32))


def features(regions, function):
    """The regions with other features."""
    return changed(regions, features=function(regions.features))


def scale_of(regions):
    return MMF_INPUT.scale(regions.image_height, regions.image_width)


def xywh(bbox, one=0):
    return np.concatenate([bbox[:, :2], bbox[:, 2:] - bbox[:, :2] + one], axis=1)


def normalised(regions):
    size = np.array([regions.image_width, regions.image_height] * 2)
    return boxes(regions, lambda bbox: bbox / size)


def result(a, b, **settings):
    """What the command would write as JSON, of stores given as dicts."""
    a, b = MemoryStore(a, "A"), MemoryStore(b, "B")
    return as_dict(compare(a, b, Settings(**settings)), a, b)


def names_of(found):
    """The names of the opinions."""
    return [opinion["name"] for opinion in found["opinions"]]


def kinds_of(found):
    """The kinds of the reasons."""
    return {reason["kind"] for reason in found["reasons"]}
