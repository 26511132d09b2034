"""An extractor without a network, for tests of what is around it."""

import dataclasses
import time
import weakref

import torch
from PIL import Image
from support import some_regions

from vmb_d2.data.image_list import list_images, name_images
from vmb_d2.extractor import RegionFeatureExtractor, pad
from vmb_d2.selection.options import RegionOptions
from vmb_d2.structures.box_geometry import VMB


class FakeModel:
    """As much of a model as is asked for around the network."""

    device = torch.device("cpu")
    feature_names = ("fc6", "fc7")
    feature_dimension = 16
    num_classes = 9
    attributes = None
    box_convention = VMB

    def __init__(self, seed):
        self.seed = seed

    def for_inference(self, dtype):
        return self

    def state_dict(self):
        return {"seed": torch.tensor(self.seed)}


class FakeExtractor(RegionFeatureExtractor):
    """Gives each image regions that depend on its pixels and the seed alone.

    ``before_batch`` is called with the images of each batch before anything else. ``uploaded``:
    how many batches came from :meth:`to_network`.
    """

    uploaded = 0

    def __init__(self, seed=0, before_batch=lambda images: None, precision="fp32", **options):
        model = FakeModel(seed)
        super().__init__(model, RegionOptions(**options), precision=precision, layer_by_layer=True)
        self.before_batch = before_batch
        self.batches = []
        self._given = []

    def extract_batch(self, images, padded_size, boxes=None, batch=None):
        if batch is not None:
            assert torch.equal(batch.tensor, pad(images, padded_size).tensor)
            self.uploaded += 1
        self.before_batch(images)
        self.batches.append(len(images))
        regions = [self._regions(image) for image in images]
        self._given += [weakref.ref(r.features) for r in regions]
        return regions

    def to_network(self, images, padded_size):
        return pad(images, padded_size)

    def wait_until_written(self):
        """Wait until all that was given is, and was let go of."""
        end = time.monotonic() + 60
        while any(features() is not None for features in self._given):
            assert time.monotonic() < end
            time.sleep(0.001)

    def _regions(self, image):
        seed = int(image.tensor.abs().double().sum()) + self.model.seed
        regions = some_regions(seed, image_width=image.width, image_height=image.height)
        further = {n: regions.features + i for i, n in enumerate(self.feature_names[1:], 1)}
        return dataclasses.replace(regions, further=further)


def small_images(folder, count, size=(8, 6)):
    """Images of one size, each of a colour of its own."""
    folder.mkdir(exist_ok=True)
    for i in range(count):
        Image.new("RGB", size, (i, 255 - i, 7 * i % 256)).save(folder / f"image_{i:03}.png")
    return name_images(list_images(folder))


def images_with_warnings(folder):
    """Image files of which Pillow warns, and the begin of each warning's text."""
    image = Image.effect_noise((17, 13), 50).convert("RGB")
    palette, exif = folder / "palette.png", folder / "exif.jpg"
    image.convert("P").save(palette, transparency=bytes([10, 128]))
    image.save(exif, exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff")
    return {palette: "Palette images", exif: "Corrupt EXIF data"}
